"""How the gateway's figures grow: over connections, channels, rates, sizes, threads and nodes."""

import dataclasses

from .machine import Failed
from .measure import measure
from .scenarios import Scenario, most_clients


@dataclasses.dataclass(frozen=True)
class Series:
    name: str
    title: str
    # What grows, and its values.
    axis: str
    values: tuple
    # Makes the scenario of a value.
    scenario: object
    # The member of a result that is drawn, and its unit.
    value: str = "cpu_us"
    unit: str = "µs of CPU a delivery"
    # Draw a second line from this member.
    second: str = ""

    @property
    def shown(self):
        """What the rows of a table are called. Its cells have their own unit."""
        return "p50 / p99" if self.second else self.unit.removeprefix("µs of ")


def point(name, job, command, options, **size):
    return Scenario(name, "growth", name, job, command, options, size=size)


def everything():
    largest = min(20_000, most_clients())
    m1k = {"channels": 1_000, "subscribers": 1, "bytes": 100, "via": "redis", "under-way": 256}
    f1k = {"channels": 1, "subscribers": 1_000, "bytes": 256, "via": "http", "under-way": 16}
    return [
        Series("idle-beside", "1,000 channels, beside idle connections", "connections", (1_000, 5_000, largest),
               lambda n: point("idle-beside", "redis", "publish", {**m1k, "idle": n - 1_000})),
        Series("connections", "One channel", "connections", (1_000, 5_000, largest),
               lambda n: point("connections", "publish", "publish", {**f1k, "subscribers": n})),
        Series("channels", "One client a channel", "channels", (1, 100, 1_000, 10_000),
               lambda n: point("channels", "redis", "publish", {**m1k, "channels": n})),
        Series("rate", "Latency of M1k by rate", "publications per second",
               (5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 160_000, 200_000),
               lambda n: point("rate", "redis", "pace", {"channels": 1_000, "subscribers": 1, "bytes": 100,
                                                         "via": "redis", "rate": n}),
               value="p99_us", unit="µs", second="p50_us"),
        Series("bytes", "F1k by size", "bytes of a publication", (100, 256, 1_024, 4_096, 16_384, 65_536),
               lambda n: point("bytes", "publish", "publish", {**f1k, "bytes": n})),
        Series("threads", "F1k by worker threads", "threads", (1, 2),
               lambda n: point("threads", "publish", "publish", f1k, threads=n),
               value="per_second", unit="deliveries a second"),
        Series("nodes", "M1k over nodes on one Redis", "nodes", (1, 2, 3, 4),
               lambda n: point("nodes", "redis", "publish", m1k, nodes=n),
               value="cpu_us", unit="µs of CPU a delivery, all nodes"),
    ]


def run(world, server, chosen, times, on_result):
    """Measures each value of some series, and passes on each result as it comes."""
    for series in chosen:
        for value in series.values:
            entry = {"series": series.name, "x": value}
            try:
                entry["result"] = measure(world, server, series.scenario(value), times)
            except Failed as failed:
                entry["error"] = str(failed)
            on_result(entry)


def knee(points):
    """Returns the first point after which the value leaves the level of the start: more than three times the lowest
    so far. The last point before it is the knee; None if there is no such point."""
    lowest = None
    for before, (x, y) in zip([None, *points], points):
        if lowest is not None and y > 3 * lowest:
            return before
        lowest = y if lowest is None else min(lowest, y)
    return None


def show(entry):
    result = entry.get("result")
    names = ("per_second", "cpu_us", "p50_us", "p99_us", "generator_share")
    text = "  ".join(f"{name} {result[name]:,.2f}" for name in names if name in result) if result else entry["error"]
    print(f"growth {entry['series']:12} {entry['x']:>8,}  {text}", flush=True)
