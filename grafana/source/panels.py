"""Builds dashboards in Grafana's JSON model.

A panel is a dict without a position; `dashboard` lays panels out from left to right and assigns ids. Every panel
must have a unit and a description that says what to do about what it shows.
"""

SCHEMA = 39
WIDTH = 24

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# The selector of every query.
NODES = 'job=~"$job", instance=~"$instance"'

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#8e8e8e"


def selector(more=""):
    return "{" + ", ".join(filter(None, [NODES, more])) + "}"


def rate(metric, by="", where=""):
    """The rate of a counter, in events per second."""
    return f"sum{grouped(by)} (rate({metric}{selector(where)}[$__rate_interval]))"


def total(metric, by="", where=""):
    """The sum of a gauge."""
    return f"sum{grouped(by)} ({metric}{selector(where)})"


def grouped(by):
    return f" by ({by})" if by else ""


def quantile(q, metric, by="", where=""):
    """A quantile of a histogram, which is named without `_bucket`."""
    return f"histogram_quantile({q}, {rate(metric + '_bucket', ', '.join(filter(None, ['le', by])), where)})"


def quantiles(metric, where=""):
    """Queries for the median, p95 and p99."""
    return [(quantile(q, metric, where=where), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def ratio(part, whole):
    """The ratio of two rates. It is 0 if nothing happened, instead of no value."""
    return f"{part} / ({whole} > 0) or {whole} * 0"


def success(failed, whole):
    """The share that did not fail. It is 1 if nothing happened."""
    return f"1 - ({ratio(failed, whole)})"


def increase(metric, where=""):
    """The events of a counter in the selected time."""
    return f"sum(increase({metric}{selector(where)}[$__range]))"


def steps(*pairs):
    """Thresholds: the first colour, then (value, colour) pairs from which on the colour changes."""
    first, *rest = pairs
    return [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in rest]


def targets(queries, **options):
    if isinstance(queries, str):
        queries = [(queries, "")]
    return [
        {
            "refId": chr(ord("A") + n),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend or "__auto",
            **options,
        }
        for n, (expr, legend) in enumerate(queries)
    ]


def panel(kind, title, unit, description, queries, w, h, **more):
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": queries,
        "fieldConfig": {"defaults": {"unit": unit, **more.pop("defaults", {})}, "overrides": more.pop("overrides", [])},
        "gridPos": {"w": w, "h": h},
        **more,
    }


def colored(colors):
    """Overrides that give series fixed colours: {legend: colour}."""
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for name, color in colors.items()
    ]


def graph(title, unit, description, queries, *, w=8, h=8, stack=False, lowest=0, highest=None, colors=None, limits=None, steps_drawn=False):
    """A graph over time. `limits` draws thresholds as dashed lines."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter" if steps_drawn else "linear",
        "lineWidth": 1,
        "fillOpacity": 25 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    defaults = {"custom": custom, "min": lowest, "color": {"mode": "palette-classic"}}
    if highest is not None:
        defaults["max"] = highest
    if limits:
        defaults["thresholds"] = {"mode": "absolute", "steps": limits}
    return panel(
        "timeseries",
        title,
        unit,
        description,
        targets(queries),
        w,
        h,
        defaults=defaults,
        overrides=colored(colors or {}),
        options={
            # All outcomes exist from the start, most of them with 0. Sorting shows the others first.
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
                "sortBy": "Max",
                "sortDesc": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": True},
        },
    )


def number(title, unit, description, query, *, w=4, h=4, thresholds=None, names=None, spark=False, decimals=None, legend="", links=None):
    """A single current value. `names` maps values to (text, colour)."""
    defaults = {
        "thresholds": {"mode": "absolute", "steps": thresholds or steps(BLUE)},
        "color": {"mode": "thresholds"},
        "mappings": [
            {"type": "value", "options": {str(value): {"text": text, "color": color, "index": n}}}
            for n, (value, (text, color)) in enumerate((names or {}).items())
        ],
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if links:
        defaults["links"] = links
    return panel(
        "stat",
        title,
        unit,
        description,
        targets([(query, legend)], **({} if spark else {"instant": True, "range": False})),
        w,
        h,
        defaults=defaults,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if thresholds or names else "value",
            "graphMode": "area" if spark else "none",
            "textMode": "value_and_name" if legend else "auto",
            "justifyMode": "auto",
            "orientation": "auto",
        },
    )


def heat(title, unit, description, metric, *, where="", w=12, h=8):
    """The distribution of a histogram over time."""
    return panel(
        "heatmap",
        title,
        unit,
        description,
        targets([(rate(metric + "_bucket", "le", where), "{{le}}")], format="heatmap"),
        w,
        h,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
            "yAxis": {"axisPlacement": "left", "unit": unit},
            "rowsFrame": {"layout": "auto"},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": True},
            "filterValues": {"le": 1e-9},
        },
    )


def table(title, unit, description, query, *, columns, w=8, h=8):
    """The labels of an instant query. `columns` maps labels to headings; the value is the last column."""
    hidden = {"Time": True, "__name__": True}
    order = {name: position for position, name in enumerate([*columns, "Value"])}
    return panel(
        "table",
        title,
        unit,
        description,
        targets(query, instant=True, range=False, format="table"),
        w,
        h,
        options={"showHeader": True, "cellHeight": "sm"},
        transformations=[
            {"id": "organize", "options": {"excludeByName": hidden, "indexByName": order, "renameByName": columns}}
        ],
    )


def row(title, collapsed=False):
    return {"type": "row", "title": title, "collapsed": collapsed, "panels": []}


def choice(name, label, query, *, many=True, hidden=0):
    """A dashboard variable with the values of a label."""
    variable = {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "hide": hidden,
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]} if many else {},
    }
    return variable


def variables(more=()):
    datasource = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "options": [],
        "current": {},
    }
    return [
        datasource,
        choice("job", "Job", "label_values(tidegate_build_info, job)"),
        choice("instance", "Instance", 'label_values(tidegate_build_info{job=~"$job"}, instance)'),
        *more,
    ]


def mark(name, expr, text, color):
    """An annotation at the time in a gauge, which holds Unix seconds."""
    return {
        "name": name,
        "enable": True,
        "iconColor": color,
        "datasource": DATASOURCE,
        "expr": expr,
        "useValueForTime": "on",
        "step": "60s",
        "titleFormat": name,
        "textFormat": text,
        "tagKeys": "instance",
    }


MARKS = [
    mark("Start", f"process_start_time_seconds{selector()} * 1000", "{{instance}} started", BLUE),
    mark(
        "Configuration",
        f"tidegate_config_last_reload_timestamp_seconds{selector()} * 1000",
        "{{instance}} applied a new configuration",
        "purple",
    ),
]

HOME = {
    "type": "dashboards",
    "title": "Tidegate",
    "tags": ["tidegate"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}


def placed(panels):
    """Lays panels out from left to right. A full line or a row starts a new line."""
    x = y = height = 0
    for id, item in enumerate(panels, start=1):
        grid = item.get("gridPos", {"w": WIDTH, "h": 1})
        if x + grid["w"] > WIDTH or item["type"] == "row":
            x, y, height = 0, y + height, 0
        yield {**item, "id": id, "gridPos": {"x": x, "y": y, **grid}}
        x, height = x + grid["w"], max(height, grid["h"])


def dashboard(uid, title, description, panels, more=()):
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["tidegate"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [HOME],
        "annotations": {"list": MARKS},
        "templating": {"list": variables(more)},
        "panels": list(placed(panels)),
    }
