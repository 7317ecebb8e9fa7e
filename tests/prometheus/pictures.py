"""Draws the data of a dashboard similar to Grafana's layout, to look at it without Grafana."""

import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plot  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

PREFIXES = [(1e9, "G"), (1e6, "M"), (1e3, "k")]


def written(value, unit):
    if not math.isfinite(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    for size, letter in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}{'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}" + {"s": " s", "reqps": "/s", "ops": "/s", "bytes": " B"}.get(unit, "")


def legend(target, labels):
    text = target["legendFormat"]
    if text == "__auto":
        return ""
    return re.sub(r"\{\{(\w+)\}\}", lambda use: labels.get(use.group(1), ""), text)


def lines(axes, panel, results, unit):
    named = [(legend(target, labels), points) for target, series in results for labels, points in series]
    named.sort(key=lambda one: -last(one[1]))
    shown = [(name, points) for name, points in named if any(value for _, value in points)] or named[:3]
    begin = min((points[0][0] for _, points in shown), default=0)
    if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
        times = sorted({time for _, points in shown for time, _ in points})
        values = [[dict(points).get(time, 0) for time in times] for _, points in shown]
        values = [[value if math.isfinite(value) else 0 for value in line] for line in values]
        axes.stackplot([time - begin for time in times], values, labels=[name for name, _ in shown], alpha=0.6)
    else:
        for name, points in shown:
            axes.plot([time - begin for time, _ in points], [value for _, value in points], label=name, lw=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=5, loc="upper left", framealpha=0.5)


def last(points):
    finite = [value for _, value in points if math.isfinite(value)]
    return finite[-1] if finite else 0


def figure(axes, panel, results, unit):
    names = {
        value: options["text"]
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", [])
        for value, options in mapping["options"].items()
    }
    texts = [
        f"{legend(target, labels)} {names.get(f'{last(points):g}', written(last(points), unit))}".strip()
        for target, series in results
        for labels, points in series
    ]
    axes.axis("off")
    size = 14 if len(texts) == 1 else 7
    axes.text(0.5, 0.5, "\n".join(texts), ha="center", va="center", fontsize=size, transform=axes.transAxes)


def heat(axes, results, unit):
    """Returns the counts between two bounds from cumulative buckets."""
    [(_, series)] = results
    buckets = sorted(((float(labels["le"]), dict(points)) for labels, points in series), key=lambda one: one[0])
    times = sorted({time for _, points in buckets for time in points})
    rows, below = [], dict.fromkeys(times, 0)
    for _, points in buckets:
        rows.append([max(points.get(time, 0) - below[time], 0) for time in times])
        below = {time: points.get(time, 0) for time in times}
    axes.pcolormesh(rows, cmap="Oranges")
    axes.set_yticks(range(1, len(buckets) + 1), [written(bound, unit) for bound, _ in buckets], fontsize=5)
    axes.tick_params(axis="x", labelsize=6)


def words(axes, panel, results):
    [(_, series)] = results
    [columns] = [step["options"]["renameByName"] for step in panel["transformations"]]
    text = "\n".join("   ".join(labels.get(name, "") for name in columns) for labels, _ in series)
    axes.axis("off")
    axes.text(0.05, 0.9, "   ".join(columns.values()) + "\n" + text, va="top", fontsize=7, transform=axes.transAxes)


def draw(dashboard, drawn, path):
    """`drawn` = [(panel, [(target, series)])]."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    sheet = plot.figure(figsize=(18, height * 0.36), dpi=80)
    sheet.suptitle(dashboard["title"], y=1 - 0.2 / (height * 0.36), fontsize=11)
    for row in dashboard["panels"]:
        if row["type"] == "row":
            y = 1 - (row["gridPos"]["y"] + 1.6) / (height + 1.5)
            sheet.text(0.5 / 24.4, y, row["title"], fontsize=10, weight="bold")
    for panel, results in drawn:
        grid, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
        axes = sheet.add_axes(
            (
                (grid["x"] + 1.0) / 24.4,
                1 - (grid["y"] + grid["h"] - 0.2) / (height + 1.5) - 1 / (height + 1.5),
                (grid["w"] - 1.4) / 24.4,
                (grid["h"] - 1.6) / (height + 1.5),
            )
        )
        axes.set_title(panel["title"], fontsize=8, loc="left")
        if not any(series for _, series in results):
            axes.text(0.5, 0.5, "no data", ha="center", fontsize=9, transform=axes.transAxes)
            continue
        match panel["type"]:
            case "timeseries":
                lines(axes, panel, results, unit)
            case "stat":
                figure(axes, panel, results, unit)
            case "heatmap":
                heat(axes, results, unit)
            case "table":
                words(axes, panel, results)
            case other:
                raise AssertionError(f"no picture of a {other}")
    sheet.savefig(path)
    plot.close(sheet)
