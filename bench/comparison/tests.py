"""Tests of the tables, plots and knees, without a measurement: python3 -m unittest comparison.tests in bench/."""

import tempfile
import unittest
import xml.etree.ElementTree as tree
from pathlib import Path

from . import docs, growth, machine, plot, report, scenarios
from .servers import everyone

REPOSITORY = Path(__file__).resolve().parents[2]


def entry(round_number, scenario, server, **result):
    return {"round": round_number, "scenario": scenario, "server": server, "result": result}


def rates(scenario, server, *values, cpu=1.0, share=0.5):
    return [
        entry(number, scenario, server, per_second=value, cpu_us=cpu, generator_share=share)
        for number, value in enumerate(values, 1)
    ]


LATENCY = {"p50_us": 120, "p99_us": 333, "p999_us": 900, "cpu_us": 7, "generator_share": 0.4, "per_second": 10_000}
RESULTS = {
    "command": "bench/compare",
    "date": "2026-11-30",
    "commit": "abc",
    "machine": {"cores": 2, "processor": "X", "memory_gib": 8, "kernel": "6.18", "load_before": 0.1, "pinned": True},
    "versions": {server.name: "1" for server in everyone() if server.name != "anycable"},
    "absent": {"anycable": "the module is | not available"},
    "seconds": 3,
    "rounds": [
        *rates("f1k-http", "tidegate", 1_000_000, 3_000_000, 2_000_000, share=0.99),
        *rates("f1k-http", "centrifugo", 225_000, 225_000, 225_000),
        *rates("m1k-redis", "tidegate", 173_000),
        *rates("m1k-redis", "minimal", 204_000),
        *rates("m1k-redis", "raw-redis", 400_000),
        *rates("bound-1000", "writev-4", 959_000),
        entry(1, "m1k-redis", "tidegate-all", per_second=90_000, cpu_us=8.5, beside_cpu_us=4.2, generator_share=0.5),
        entry(1, "m1k-latency", "tidegate", **LATENCY),
        entry(1, "m1k-latency", "minimal", **{**LATENCY, "p99_us": 330}),
        {"round": 1, "scenario": "f1k-http", "server": "nchan", "error": "990 of 1000 deliveries arrived"},
    ],
    "growth": [
        {"series": "rate", "x": rate, "result": {"p99_us": p99, "p50_us": p99 / 3, "cpu_us": 5, "per_second": rate}}
        for rate, p99 in ((5_000, 300), (10_000, 280), (20_000, 350), (40_000, 5_000))
    ]
    + [{"series": "rate", "x": 80_000, "error": "the server ended a connection"}],
    "hundred": {
        "connections": 100_000, "nodes": 6, "generators": 6, "opened_seconds": 30.0, "bytes_per_connection": 1_600.0,
        "first_publication_seconds": 0.6, "publications": 10, "per_second": 400_000.0, "cpu_us": 3.5,
    },
}


class Report(unittest.TestCase):
    def setUp(self):
        self.servers, self.scenarios = everyone(), scenarios.everything()

    def table(self, group):
        return report.table(group, RESULTS, self.servers, self.scenarios)

    def test_cells_are_medians_and_the_leader_is_bold(self):
        table = self.table("fan-out")
        self.assertIn("| Tidegate | **2.00 M, 1.00 µs ᵍ** |", table)
        self.assertIn("| Centrifugo | 225 k, 1.00 µs |", table)
        self.assertIn("no time left", table)

    def test_what_failed_or_cannot_be_done_has_its_reason(self):
        self.assertIn("1. 990 of 1000 deliveries arrived.", self.table("fan-out"))
        self.assertIn("| nchan | – (1) |", self.table("fan-out"))
        # A server that does only this job is in the table, without leading it.
        self.assertIn("| bound: Redis itself | 400 k, 1.00 µs |", self.table("channels"))
        self.assertNotIn("Centrifugo", self.table("channels"))
        self.assertIn("| bound: 4 in a `writev` | 959 k, 1.00 µs |", self.table("bounds"))
        self.assertEqual(self.table("relay"), "")

    def test_a_lead_of_a_peer_is_said_with_its_cause(self):
        lines = report.leads(RESULTS, self.servers, self.scenarios, lambda *names: " ".join(names))
        self.assertIn("**M1k by Redis `PUBLISH`**: minimal, 204 k, 1.00 µs, against 173 k, 1.00 µs. m1k-redis minimal", lines)
        # 333 against 330 µs is noise, and a bound is no peer.
        self.assertEqual(lines.count("\n"), 0)

    def test_what_options_cost_is_beside_what_it_costs_without(self):
        table = docs.everything_on(RESULTS, self.scenarios)
        self.assertIn("| M1k by Redis `PUBLISH` | 1.00 µs | 8.50 µs | 4.20 µs |", table)
        # It was measured only once, and leads nothing.
        self.assertEqual(table.count("\n"), 2)
        self.assertIn("| Tidegate, everything on | 90.0 k, 8.50 µs |", self.table("channels"))

    def test_every_scenario_has_a_server_and_each_server_a_reason_or_a_job(self):
        names = [scenario.name for scenario in self.scenarios]
        self.assertEqual(len(names), len(set(names)))
        for scenario in self.scenarios:
            self.assertIn(scenario.group, scenarios.GROUPS)
            self.assertTrue([server for server in self.servers if not scenario.reason(server)], scenario.name)
        for server in self.servers:
            self.assertTrue([scenario for scenario in self.scenarios if not scenario.reason(server)], server.name)
            self.assertTrue(server.carries, server.name)

    def test_each_known_cause_is_one_of_a_scenario(self):
        names = {scenario.name for scenario in self.scenarios}
        self.assertLessEqual({*docs.DRAWN}, names)
        for leader, beginnings, text in docs.REASONS:
            self.assertIn(leader, {server.name for server in self.servers})
            for beginning in beginnings:
                led = next(scenario for scenario in self.scenarios if scenario.name.startswith(beginning))
                self.assertEqual(docs.why(led.name, leader), text)
        self.assertIsNone(docs.why("m1k-redis", "tidegate"))

    def test_numbers_are_short(self):
        self.assertEqual([report.count(value) for value in (850, 66_000, 233_400, 1_757_000)],
                         ["850", "66.0 k", "233 k", "1.76 M"])
        self.assertEqual([report.micros(value) for value in (0.4, 333, 17_300)], ["0.40 µs", "333 µs", "17.3 ms"])


class Drawings(unittest.TestCase):
    def test_plots_are_valid_and_show_their_values(self):
        drawn = docs.drawings(RESULTS, everyone(), scenarios.everything())
        self.assertLessEqual({"f1k-http", "m1k-redis", "m1k-latency", "growth-rate"}, set(drawn))
        for name, svg in drawn.items():
            tree.fromstring(svg)
            self.assertIn("prefers-color-scheme: dark", svg, name)
        self.assertIn("959 k", drawn["f1k-http"])
        self.assertIn("knee: 20 k", drawn["growth-rate"])

    def test_a_knee_is_the_last_point_on_the_level_of_the_start(self):
        self.assertEqual(growth.knee([(1, 10), (2, 8), (4, 9), (8, 30)]), (4, 9))
        self.assertIsNone(growth.knee([(1, 10), (2, 20)]))
        self.assertIsNone(growth.knee([]))

    def test_one_point_and_one_bar_can_be_drawn(self):
        tree.fromstring(plot.lines("a & b", "x", "y", [("one", [(5, 7)])], (5, 7)))
        tree.fromstring(plot.bars("a < b", [("one", 0, "0", "ours")]))


class Page(unittest.TestCase):
    def test_the_page_has_markers_for_every_part(self):
        servers, every = everyone(), scenarios.everything()
        ours = ("tidegate", "tidegate-all")
        everywhere = [rate for scenario in every for name in ours for rate in rates(scenario.name, name, 1)]
        for one in everywhere:
            one["result"] |= {**LATENCY, "ratio": 1, "quiet_p99_us": 1, "beside_p99_us": 1, "bytes_per_connection": 1}
        with tempfile.TemporaryDirectory() as name:
            repository = Path(name)
            (repository / "docs").mkdir()
            page = repository / "docs" / "performance.md"
            page.write_text((REPOSITORY / "docs" / "performance.md").read_text())
            for _ in range(2):
                docs.write(repository, {**RESULTS, "rounds": everywhere}, servers, every)
            text = page.read_text()
            self.assertIn("AnyCable-Go | absent: the module is / not available", text)
            self.assertIn("100,000 connections in 6 processes", text)
            self.assertIn("At 80 k: the server ended a connection.", text)
            for image in docs.drawings({**RESULTS, "rounds": everywhere}, servers, every):
                self.assertTrue((repository / "docs" / "plots" / f"{image}.svg").exists())
                self.assertIn(f"(plots/{image}.svg)", text)


class Machine(unittest.TestCase):
    def test_a_process_is_found_with_its_children_and_ended(self):
        with tempfile.TemporaryDirectory() as name:
            with machine.Processes(name) as processes:
                processes.start(["sh", "-c", "sleep 60 & wait"], [], family=2)
                found = processes.measured()
                self.assertEqual(len(found), 2)
            self.assertFalse([pid for pid in found if Path(f"/proc/{pid}/cmdline").exists() and alive(pid)])

    def test_a_process_that_ends_is_a_failure_with_its_output(self):
        with tempfile.TemporaryDirectory() as name, machine.Processes(name) as processes:
            with self.assertRaisesRegex(machine.Failed, "no such thing"):
                processes.start(["sh", "-c", "echo no such thing; exit 1"], [1])

    def test_redis_commands_are_encoded_by_length(self):
        self.assertEqual(machine.encode(("SET", "ä", 1)), b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n1\r\n")


def alive(pid):
    """Whether a process has not ended. One that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    unittest.main()
