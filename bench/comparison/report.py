"""Turns the results of a run into tables: medians over the rounds, reasons for what is missing, and who leads."""

import statistics

from .scenarios import GROUPS

# Above this share of their core, the generator, Redis and upstreams may limit what is measured.
LIMITED = 0.95
# A lead below this is noise.
NOISE = 1.05


class Cell:
    """The medians of one server in one scenario."""

    def __init__(self, entries, scenario):
        self.scenario = scenario
        self.errors = [entry["error"] for entry in entries if "error" in entry]
        self.results = [entry["result"] for entry in entries if "result" in entry]

    def median(self, name):
        values = [result[name] for result in self.results if name in result]
        return statistics.median(values) if values else None

    @property
    def value(self):
        return self.median(self.scenario.value)

    @property
    def limited(self):
        return (self.median("generator_share") or 0) > LIMITED

    def text(self):
        """Returns what a table shows, or None if there is no result."""
        value = self.value
        if value is None:
            return None
        mark = " ᵍ" if self.limited else ""
        if self.scenario.value == "p99_us":
            parts = [micros(self.median(name)) for name in ("p50_us", "p99_us", "p999_us")]
            return " / ".join(parts) + mark
        if self.scenario.value == "bytes_per_connection":
            return shown_value(value, self.scenario.value)
        if self.scenario.value == "ratio":
            return f"{micros(self.median('quiet_p99_us'))} → {micros(self.median('beside_p99_us'))} = {value:.1f}{mark}"
        if self.scenario.value == "cpu_us":
            return micros(value)
        return f"{count(value)}, {micros(self.median('cpu_us'))}{mark}"


def count(value):
    """Returns a rate with three digits: 1.76 M, 233 k, 850."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:.2f}{unit}" if scaled < 10 else f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def micros(value):
    if value >= 1e5:
        return f"{value / 1e3:,.0f} ms"
    if value >= 1e4:
        return f"{value / 1e3:,.1f} ms"
    return f"{value:.2f} µs" if value < 10 else f"{value:,.0f} µs"


def shown_value(value, name):
    """Returns memory or CPU time with its unit."""
    return f"{value / 1024:,.2f} KiB" if name == "bytes_per_connection" else micros(value)


def cells(results, scenarios):
    """Returns {scenario name: {server name: cell}} of what was measured."""
    found = {}
    for scenario in scenarios:
        by_server = {}
        for entry in results["rounds"]:
            if entry["scenario"] == scenario.name:
                by_server.setdefault(entry["server"], []).append(entry)
        if by_server:
            found[scenario.name] = {name: Cell(entries, scenario) for name, entries in by_server.items()}
    return found


def table(group, results, servers, scenarios):
    """Returns the Markdown table of a group with its footnotes, or "" if nothing of it was measured."""
    measured = cells(results, scenarios)
    columns = [scenario for scenario in scenarios if scenario.group == group and scenario.name in measured]
    rows = [server for server in servers if any(takes_part(server, column, measured) for column in columns)]
    if not columns:
        return ""
    notes = []
    lines = ["| server | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for server in rows:
        texts = [shown(measured, column, server, best(measured, column), notes) for column in columns]
        lines.append(f"| {server.title} | " + " | ".join(texts) + " |")
    lines += [""] + [f"{number}. {note}" for number, note in enumerate(notes, 1)] if notes else []
    if any(cell.limited for column in columns for cell in measured[column.name].values()):
        lines += ["", "ᵍ The load generator, Redis and upstreams had no time left on their core, so the server may be faster."]
    return "\n".join(lines)


def takes_part(server, column, measured):
    return server.name in measured[column.name] and not column.reason(server)


def shown(measured, column, server, winner, notes):
    """Returns the text of a cell. What is missing has a footnote."""
    cell = measured[column.name].get(server.name)
    text = cell.text() if cell else None
    if text:
        return f"**{text}**" if server.name == winner else text
    reason = column.reason(server)
    if reason and (server.partial or column.group == "bounds"):
        return ""
    reason = reason or (cell.errors[-1] if cell else "it was not measured in this run")
    note = f"{reason[0].upper()}{reason[1:].rstrip('.')}."
    if note not in notes:
        notes.append(note)
    return f"– ({notes.index(note) + 1})"


def best(measured, scenario):
    """Returns the name of the server that leads a scenario. Bounds take no part, and this one only once."""
    values = {
        name: cell.value
        for name, cell in measured[scenario.name].items()
        if cell.value is not None and not is_bound(name) and name != "tidegate-all"
    }
    if not values or scenario.group in ("bounds", "fairness"):
        return None
    return (min if scenario.less else max)(values, key=values.get)


def is_bound(name):
    return name.startswith("writev-") or name == "raw-redis"


def leads(results, servers, scenarios, why):
    """Returns a line for each scenario in which a peer leads, with the reason that `why` knows."""
    measured = cells(results, scenarios)
    titles = {server.name: server.title for server in servers}
    lines = []
    for scenario in scenarios:
        ours = measured.get(scenario.name, {}).get("tidegate")
        winner = best(measured, scenario) if ours else None
        if not ours or ours.value is None or winner in (None, "tidegate"):
            continue
        theirs = measured[scenario.name][winner]
        ratio = ours.value / theirs.value if scenario.less else theirs.value / ours.value
        if ratio < NOISE:
            continue
        cause = why(scenario.name, winner) or "The cause is not known."
        lines.append(f"- **{scenario.title}**: {titles[winner]}, {theirs.text()}, against {ours.text()}. {cause}")
    return "\n".join(lines) or "In no scenario does a peer lead by more than 5 %."


def text(results, servers, scenarios):
    """Returns all tables, for the terminal."""
    parts = [f"## {title}\n\n{found}\n" for group, title in GROUPS.items() if (found := table(group, results, servers, scenarios))]
    for name, reason in results.get("absent", {}).items():
        parts.append(f"absent: {name}: {reason}")
    return "\n".join(parts)
