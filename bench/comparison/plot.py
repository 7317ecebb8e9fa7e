"""Plots as SVG, readable on a light and on a dark page."""

import math
from html import escape

WIDTH, LEFT, RIGHT, TOP = 720, 190, 110, 44
STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px }
  .quiet { fill: #57606a; font-size: 12px }
  .ours { fill: #0969da } .other { fill: #8c959f } .bound { fill: #bf8700 }
  .axis { stroke: #d0d7de; fill: none } .line { stroke: #0969da; fill: none; stroke-width: 2 }
  .second { stroke: #8c959f; fill: none; stroke-width: 2; stroke-dasharray: 5 3 }
  .knee { stroke: #cf222e; fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #4493f8 } .other { fill: #656c76 }
    .bound { fill: #d29922 } .axis { stroke: #3d444d } .line { stroke: #4493f8 } .second { stroke: #9198a1 }
    .knee { stroke: #f85149 }
  }
</style>"""


def document(height, title, body):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    heading = f"<title>{escape(title)}</title>{STYLE}<text class=\"title\" x=\"12\" y=\"24\">{escape(title)}</text>"
    return "\n".join([head, heading, *body, "</svg>", ""])


def bars(title, rows):
    """Draws horizontal bars: (label, value, text, kind), where the kind is "ours", "other" or "bound"."""
    largest = max((value for _, value, _, _ in rows), default=1) or 1
    body = []
    for number, (label, value, text, kind) in enumerate(rows):
        y = TOP + number * 26
        length = max(1, (WIDTH - LEFT - RIGHT) * value / largest)
        body.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        body.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="18" rx="2"/>')
        body.append(f'<text class="quiet" x="{LEFT + length + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    return document(TOP + len(rows) * 26 + 12, title, body)


def lines(title, axis, unit, series, knee=None):
    """Draws lines over a logarithmic axis: series is [(name, [(x, y)])], the second one dashed. The knee is a point."""
    height, left, bottom = 320, 80, 262
    points = [point for _, line in series for point in line]
    if not points:
        return document(60, title, ['<text x="12" y="48">not measured</text>'])
    xs = [math.log10(x) for x, _ in points]
    low, high = min(xs), max(xs)
    # Values over more than a decade are drawn on a logarithmic axis, others from 0.
    ys = [y for _, y in points]
    logarithmic = min(ys) > 0 and max(ys) / min(ys) > 20
    bottom_y, top_y = (math.log10(min(ys)), math.log10(max(ys))) if logarithmic else (0, max(ys) * 1.1 or 1)

    def place(point):
        x = (math.log10(point[0]) - low) / ((high - low) or 1)
        y = ((math.log10(point[1]) if logarithmic else point[1]) - bottom_y) / ((top_y - bottom_y) or 1)
        return left + x * (WIDTH - left - 60), bottom - y * (bottom - TOP)

    body = [f'<path class="axis" d="M{left} {TOP}V{bottom}H{WIDTH - 40}"/>']
    for x in sorted({x for x, _ in points}):
        at, _ = place((x, ys[0]))
        body.append(f'<text class="quiet" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{short(x)}</text>')
    for part in (0, 0.25, 0.5, 0.75, 1):
        value = bottom_y + (top_y - bottom_y) * part
        at = bottom - part * (bottom - TOP)
        value = 10**value if logarithmic else value
        body.append(f'<text class="quiet" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
        body.append(f'<path class="axis" d="M{left} {at:.1f}H{WIDTH - 40}"/>')
    for number, (name, line) in enumerate(series):
        kind = "second" if number else "line"
        path = "L".join("{:.1f} {:.1f}".format(*place(point)) for point in line)
        body.append(f'<path class="{kind}" d="M{path}"/>')
        body += ['<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>'.format(kind, *place(point)) for point in line]
        if len(series) > 1 and line:
            x, y = place(line[-1])
            body.append(f'<text class="quiet" x="{x:.1f}" y="{y - 8:.1f}" text-anchor="end">{escape(name)}</text>')
    if knee:
        x, y = place(knee)
        body.append(f'<circle class="knee" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
        body.append(f'<text x="{x:.1f}" y="{y - 14:.1f}" text-anchor="middle">knee: {short(knee[0])}</text>')
    body.append(f'<text class="quiet" x="{WIDTH - 40}" y="{bottom + 40}" text-anchor="end">{escape(axis)}</text>')
    body.append(f'<text class="quiet" x="12" y="{bottom + 40}">{escape(unit)}</text>')
    return document(height, title, body)


def short(value):
    """Returns a number of an axis: 1.5 M, 20 k, 64, 0.35."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
