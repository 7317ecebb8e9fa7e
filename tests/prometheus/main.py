#!/usr/bin/env python3
"""Dashboards and alerts against a real Prometheus: main.py BINARY PROMETHEUS PICTURES

BINARY is the gateway's, PROMETHEUS a folder with `prometheus` and `promtool`; pictures of the dashboards' data are
drawn into the folder PICTURES. Every panel's, variable's, annotation's and rule's expression must give data."""

import asyncio
import contextlib
import pathlib
import re
import sys
import time

import files
import load
import pictures
import queries
from world import World, until

# Expressions that have no data while there is no fault.
NO_DATA = {
    "TidegateAbsent": "says that there are no targets at all",
}


def panels_have_data(world, folder):
    prometheus = world.prometheus
    known = set(prometheus.get("label/__name__/values"))
    count, wrong, still = 0, [], []
    for name, dashboard in queries.dashboards().items():
        variables = queries.Variables(prometheus, dashboard, {"route": "/ws/chat/{conversation_id}/"})
        drawn = []
        for panel in files.panels(dashboard):
            results = []
            for target in panel["targets"]:
                count += 1
                expr = variables.filled(target["expr"])
                ask = queries.of_now if target.get("instant") else queries.over_time
                series = ask(prometheus, expr)
                results.append((target, series))
                if missing := queries.metrics(expr) - known:
                    wrong.append(f"{name}, {panel['title']}: there is no {', '.join(missing)}")
                elif not queries.finite(series):
                    wrong.append(f"{name}, {panel['title']}: no data: {expr}")
                elif not queries.moves(series):
                    still.append(f"{name}, {panel['title']}: {target['legendFormat']}")
            drawn.append((panel, results))
        for mark in dashboard["annotations"]["list"]:
            if not queries.finite(queries.of_now(prometheus, variables.filled(mark["expr"]))):
                wrong.append(f"{name}, annotation {mark['name']}: no data")
        pictures.draw(dashboard, drawn, folder / f"{name}.png")
    print("0 throughout:", *still, sep="\n  ")
    assert not wrong, "\n".join(wrong)
    print(f"ok: {count} queries of panels have data")


def rules_have_data(world):
    prometheus = world.prometheus
    known = set(prometheus.get("label/__name__/values"))
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    wrong = []
    for rule in rules:
        name, expr = rule["name"], rule["query"]
        if rule["health"] != "ok":
            wrong.append(f"{name}: {rule['health']}: {rule.get('lastError')}")
        if missing := queries.metrics(expr) - known:
            wrong.append(f"{name}: there is no {', '.join(missing)}")
        for part in queries.parts(queries.without_thresholds(expr)):
            has_data = queries.finite(queries.of_now(prometheus, part))
            if has_data is (name in NO_DATA):
                wrong.append(f"{name}: {'data after all' if has_data else 'no data'}: {part}")
    assert {rule["name"] for rule in rules} >= set(files.alerts()), "Prometheus did not load all alerts"
    assert not wrong, "\n".join(wrong)
    print(f"ok: {len(rules)} rules have data and no error")


def alerts_fire(world):
    """The alerts fire for what the load broke, and none misses Redis on the memory engine."""
    def seen():
        return {
            alert["labels"]["alertname"]: alert
            for alert in world.prometheus.get("alerts")["alerts"]
            if alert["state"] in ("pending", "firing")
        }

    for expected in ("TidegateUpstreamErrors", "TidegateGenerationsLost"):
        until(f"{expected} is pending", lambda: expected in seen())
    for name, alert in seen().items():
        for text in alert["annotations"].values():
            assert not re.search(r"<no value>|\{\{|error expanding", text), (name, text)
    for unexpected in ("TidegateDown", "TidegateRedisLost", "TidegateSubscriptionNotLive", "TidegateNotReady"):
        assert unexpected not in seen(), seen()[unexpected]
    print("ok: pending or firing:", ", ".join(sorted(seen())))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    binary, binaries, folder = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    began = time.monotonic()
    files.check(binaries)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        world = World(stack, binary, binaries)
        asyncio.run(load.run(world))
        world.prometheus.sees(time.time())
        panels_have_data(world, folder)
        rules_have_data(world)
        alerts_fire(world)
    print(f"ok: pictures in {folder}; {time.monotonic() - began:.0f} s in all")


main()
