"""The queries of dashboards and rules, sent to Prometheus as Grafana would, and the part of an alert that
must have data although the alert does not fire."""

import json
import math
import re
import time

from world import ROOT

# The range in seconds of the pictures, and of $__range.
RANGE = 40
STEP = 1
SCRAPE = 1
# As in Grafana: the larger of a step plus a scrape and four scrapes.
RATE_INTERVAL = max(STEP + SCRAPE, 4 * SCRAPE)

SET_OPERATORS = re.compile(r"\b(?:and|or|unless)\b")


def dashboards():
    folder = ROOT / "grafana/dashboards"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def quoted(value):
    """Quotes a value as Grafana does for `=~`, for a variable that can have several values."""
    return re.sub(r"[\\^$*+?.()|{}\[\]]", lambda special: "\\\\" + special.group(), value)


class Variables:
    """The values of a dashboard's variables: all values where several are possible, otherwise the given one."""

    def __init__(self, prometheus, dashboard, single):
        self.text = {
            "__rate_interval": f"{RATE_INTERVAL}s",
            "__interval": f"{STEP}s",
            "__range": f"{RANGE}s",
            "datasource": "prometheus",
        }
        for variable in dashboard["templating"]["list"]:
            if variable["type"] != "query":
                continue
            name = variable["name"]
            values = self.values(prometheus, variable["query"]["query"])
            if not values:
                raise AssertionError(f"{dashboard['title']}: ${name} has no values")
            if variable["multi"]:
                self.text[name] = "(" + "|".join(map(quoted, values)) + ")"
            else:
                assert single[name] in values, values
                self.text[name] = single[name].replace("\\", "\\\\").replace('"', '\\"')

    def values(self, prometheus, query):
        """Returns the values of `label_values(selector, label)`."""
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        found = prometheus.call("series", **{"match[]": self.filled(selector)})
        return sorted({series[label] for series in found if label in series})

    def filled(self, text):
        filled = re.sub(r"\$\{?(\w+)\}?", lambda use: self.text[use.group(1)], text)
        assert "$" not in filled, filled
        return filled


def over_time(prometheus, expr):
    """Returns [(labels, [(time, value)])] of the last RANGE seconds."""
    now = math.floor(time.time())
    data = prometheus.call("query_range", query=expr, start=now - RANGE, end=now, step=STEP)
    return [(s["metric"], [(t, float(v)) for t, v in s["values"]]) for s in data["result"]]


def of_now(prometheus, expr):
    data = prometheus.call("query", query=expr)
    if data["resultType"] == "scalar":
        return [({}, [(data["result"][0], float(data["result"][1]))])]
    return [(s["metric"], [(s["value"][0], float(s["value"][1]))]) for s in data["result"]]


def finite(series):
    return any(math.isfinite(value) for _, points in series for _, value in points)


def moves(series):
    return any(math.isfinite(value) and value != 0 for _, points in series for _, value in points)


def outside(expr):
    """Returns the expression with everything in braces and quotes blanked, at the same length."""
    return re.sub(r"\{[^}]*\}|\"[^\"]*\"", lambda inner: "~" * len(inner.group()), expr)


def without_thresholds(expr):
    """Turns comparisons into those that return 0 or 1 for each series instead of filtering."""
    plain = outside(expr)
    comparisons = [found.end() for found in re.finditer(r"(?<![=!<>])(?:[=!]=|[<>]=?)(?![=~])", plain)]
    for end in reversed(comparisons):
        expr = expr[:end] + " bool" + expr[end:]
    return expr


def parts(expr):
    """Splits the expression at its top-level `unless`: the first part has data only while the second has none."""
    plain, depth, cuts = outside(expr), 0, []
    for found in re.finditer(r"[()]|\bunless\b(?:\s+on\s*\([^)]*\))?", plain):
        if found.group() in "()":
            depth += 1 if found.group() == "(" else -1
        elif depth == 0:
            cuts.append(found.span())
    begin = 0
    for start, end in cuts:
        yield expr[begin:start]
        begin = end
    yield expr[begin:]


def metrics(expr):
    """Returns the names of the metrics in the expression, including both sides of an `or`."""
    return set(re.findall(r"\b(?:tidegate|process)_\w+|\bup\b|\w+:tidegate_\w+:\w+", outside(expr)))
