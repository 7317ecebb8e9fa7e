"""Writes the tables of docs/performance.md between their markers, and the plots beside it."""

import re

from . import growth, plot, report
from .scenarios import GROUPS, everything

# What is known of why a peer leads: by its name, in scenarios whose names begin so. It is shown only where one does.
REASONS = [
    ("minimal", ("m1k",), "Of a publication, Tidegate also checks that it is JSON, looks for a terminal event and counts it."),
    ("minimal", ("list", "http"), "Tidegate also checks limits, and records the reply and monitors it to its end; the "
     "minimal server only passes the message on."),
    ("minimal", ("stream",), "Tidegate writes four events for the two of the upstream, records the reply, and keeps a history "
     "of it."),
    ("minimal", ("handshake",), "Tidegate also checks origin, credentials, limits of its address and user, and memory."),
    ("nchan", ("m1k",), "Of a publication, Tidegate also checks the key and that it is JSON, and a call can name any channels."),
    ("nchan", ("handshake",), "nchan checks nothing but the path; Tidegate checks route, origin, credentials, channel and limits."),
    ("uws", ("idle",), "uWebSockets keeps a socket and its topic; a session has its user, limits, channel and heartbeat."),
    ("centrifugo", ("stream",), "Centrifugo's answer is one frame and leaves nothing behind; a reply in Tidegate is four events, "
     "kept for those who resume."),
    ("nginx", ("raw",), "A proxy copies bytes; Tidegate assembles and checks messages, and masks them anew."),
    ("haproxy", ("raw",), "A proxy copies bytes; Tidegate assembles and checks messages, and masks them anew."),
]
PLOTS = "docs/plots"
# The scenarios whose plots are shown on the page, in the part of their group.
DRAWN = {
    "f1k-http": "F1k by HTTP",
    "f10k-4": "F10k by HTTP, 4 under way",
    "m1k-redis": "M1k by Redis PUBLISH",
    "m1k-latency": "Latency of M1k",
    "http-100": "Relay to HTTP, 100 clients",
    "idle": "Memory of an idle connection",
}


def write(repository, results, servers, scenarios):
    page = repository / "docs" / "performance.md"
    folder = repository / PLOTS
    folder.mkdir(exist_ok=True)
    text = page.read_text()
    for name, part in parts(results, servers, scenarios).items():
        text = replace(text, name, part)
    page.write_text(text)
    for name, svg in drawings(results, servers, scenarios).items():
        (folder / f"{name}.svg").write_text(svg)
    print(f"written: {page} and {folder}")


def replace(text, name, part):
    """Replaces what is between the markers of a part. A part without markers is an error of the page."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"docs/performance.md has no markers for {name}")
    return pattern.sub(lambda _: f"{begin}\n{part}\n{end}", text)


def parts(results, servers, scenarios):
    """Returns the Markdown of all parts that this run has measured."""
    found = {}
    if results.get("rounds"):
        found["run"] = run(results)
        found["servers"] = versions(results, servers)
        found["leads"] = report.leads(results, servers, scenarios, why)
        for group in GROUPS:
            if table := report.table(group, results, servers, scenarios):
                drawn = [f"![{title}](plots/{name}.svg)\n\n" for name, title in DRAWN.items() if name in names(group, results)]
                found[group] = "".join(drawn) + table
        if table := everything_on(results, scenarios):
            found["everything-on"] = table
    if results.get("growth"):
        found["growth"] = grown(results)
    if hundred := results.get("hundred"):
        found["hundred"] = thousands(hundred)
    return found


def why(scenario, server):
    """Returns the known cause of a server's lead in a scenario, or None."""
    return next((text for leader, names, text in REASONS if leader == server and scenario.startswith(names)), None)


def names(group, results):
    """Returns the scenarios of a group that have results."""
    measured = {entry["scenario"] for entry in results["rounds"] if "result" in entry}
    return {scenario.name for scenario in everything() if scenario.group == group} & measured


def run(results):
    machine = results["machine"]
    rounds = max(entry["round"] for entry in results["rounds"])
    pinned = "the server on one, the generator, Redis and upstreams on the other" if machine["pinned"] else "not pinned"
    return (
        f"`{results['command']}` on {results['date']}, commit `{results['commit']}`: {rounds} round{'s' * (rounds > 1)} of "
        f"{results['seconds']:g} s; {machine['processor']}, {machine['cores']} cores ({pinned}), "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, load {machine['load_before']:g} before it began."
    )


def versions(results, servers):
    lines = ["| server | version | what it carries |", "|---|---|---|"]
    for server in servers:
        if reason := results["absent"].get(server.name):
            lines.append(f"| {server.title} | absent: {reason.replace('|', '/')} | {server.carries} |")
        elif server.name in results["versions"]:
            lines.append(f"| {server.title} | {results['versions'][server.name]} | {server.carries} |")
    return "\n".join(lines)


def everything_on(results, scenarios):
    """Returns the table of what the options cost: CPU by item, and memory. Where nothing but Redis shares the
    generator's core, also what it used."""
    measured = report.cells(results, scenarios)
    lines = ["| | by default | everything on | Redis, everything on |", "|---|---|---|---|"]
    for scenario in scenarios:
        cells = [measured.get(scenario.name, {}).get(name) for name in ("tidegate", "tidegate-all")]
        if scenario.value == "ratio" or not all(cell and cell.value is not None for cell in cells):
            continue
        name = "bytes_per_connection" if scenario.value == "bytes_per_connection" else "cpu_us"
        own = [report.shown_value(cell.median(name), name) for cell in cells]
        redis = cells[1].median("beside_cpu_us")
        redis = report.micros(redis) if name == "cpu_us" and redis is not None else ""
        lines.append(f"| {scenario.title} | {own[0]} | {own[1]} | {redis} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def grown(results):
    sections = []
    for series in growth.everything():
        entries = [entry for entry in results["growth"] if entry["series"] == series.name]
        if not entries:
            continue
        lines = [f"**{series.title}**", ""]
        if any("result" in entry for entry in entries):
            lines += [f"![{series.title}](plots/growth-{series.name}.svg)", ""]
        cells = [(plot.short(entry["x"]), growth_cell(entry, series)) for entry in entries]
        lines.append(f"| {series.axis} | " + " | ".join(x for x, _ in cells) + " |")
        lines.append("|---|" + "---|" * len(cells))
        lines.append(f"| {series.shown} | " + " | ".join(text for _, text in cells) + " |")
        errors = [f"At {plot.short(entry['x'])}: {entry['error']}." for entry in entries if "error" in entry]
        sections.append("\n".join(lines + ([""] + errors if errors else [])))
    return "\n\n".join(sections)


def growth_cell(entry, series):
    if "error" in entry:
        return "–"
    names = [series.second, series.value] if series.second else [series.value]
    show = report.micros if series.value.endswith("_us") else report.count
    return " / ".join(show(entry["result"][name]) for name in names)


def thousands(hundred):
    return (
        f"{hundred['connections']:,} connections in {hundred['nodes']} processes on one Redis, from "
        f"{hundred['generators']} generators: opened in {hundred['opened_seconds']:.0f} s, "
        f"{hundred['bytes_per_connection'] / 1024:.2f} KiB a connection (anonymous memory of all processes). "
        f"A publication to all of them reached the last one after {hundred['first_publication_seconds']:.2f} s; "
        f"{hundred['publications']} publications, one after the other, made {report.count(hundred['per_second'])} "
        f"deliveries a second, {report.micros(hundred['cpu_us'])} of CPU each. All arrived."
    )


def drawings(results, servers, scenarios):
    """Returns the plots by name."""
    found = {}
    measured = report.cells(results, scenarios)
    titles = {server.name: server.title.replace("`", "") for server in servers}
    for scenario in scenarios:
        if scenario.name not in measured or scenario.name not in DRAWN:
            continue
        bounds = measured.get("bound-10000" if scenario.name.startswith("f10k") else "bound-1000", {})
        shown = {**(bounds if scenario.group == "fan-out" else {}), **measured[scenario.name]}
        rows = [(titles[name], cell.value, cell.text(), kind(name)) for name, cell in shown.items() if cell.value]
        rows.sort(key=lambda row: row[1], reverse=not scenario.less)
        if rows:
            less = " (less is better)" if scenario.less else ""
            found[scenario.name] = plot.bars(scenario.title.replace("`", "") + less, rows)
    for series in growth.everything():
        entries = [entry for entry in results.get("growth", []) if entry["series"] == series.name and "result" in entry]
        if not entries:
            continue
        line = [(entry["x"], entry["result"][series.value]) for entry in entries]
        drawn = [(series.value.removesuffix("_us"), line)]
        if series.second:
            drawn.append((series.second.removesuffix("_us"), [(e["x"], e["result"][series.second]) for e in entries]))
        knee = growth.knee(line) if series.value != "per_second" else None
        found[f"growth-{series.name}"] = plot.lines(series.title, series.axis, series.unit, drawn, knee)
    return found


def kind(name):
    if name.startswith("tidegate"):
        return "ours"
    return "bound" if report.is_bound(name) else "other"
