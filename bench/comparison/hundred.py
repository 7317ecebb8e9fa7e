"""100,000 connections to six gateways on one Redis, or to more where the limit of open files lets a process have fewer
clients. Each gateway has a generator of its own."""

import json
import subprocess
import time

from .machine import Failed
from .measure import generator, reason
from .scenarios import most_clients
from .servers.tidegate import Tidegate

CONNECTIONS, NODES = 100_000, 6
PUBLICATIONS = 10
CHANNEL = "all"


def run(world, connections=CONNECTIONS):
    """Opens all, publishes to a channel that all are on, and returns the figures."""
    nodes = max(NODES, -(-connections // most_clients()))
    share = -(-connections // nodes)
    with world.processes() as processes:
        peer = Tidegate().start(world, processes, "redis", {"nodes": nodes})
        pids = processes.measured()
        started = time.monotonic()
        generators = [launch(world, processes, peer, number, share, connections) for number in range(nodes)]
        try:
            for process in generators:
                if process.stdout.readline().strip() != "open":
                    raise Failed(f"a generator: {reason(process.stderr.read())}")
            opened = time.monotonic() - started
            print(f"{connections:,} connections are open after {opened:.0f} s", flush=True)
            results = publish(generators, pids)
        finally:
            for process in generators:
                process.kill()
                process.wait()
    return {"connections": connections, "nodes": nodes, "generators": nodes, "opened_seconds": opened, **results}


def launch(world, processes, peer, number, share, connections):
    """Starts a generator for the clients of one node."""
    own = {**peer, "servers": [peer["servers"][number]]}
    count = min(share, connections - number * share)
    options = {"channels": 1, "subscribers": count, "prefix": CHANNEL, "first": number * 20_000}
    options |= {"publications": PUBLICATIONS}
    if number > 0:
        options |= {"listen-only": True}
    command = generator(world, processes, "together", own, options)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def publish(generators, pids):
    """Lets the first generator publish, and waits until each has received everything."""
    results = []
    for process in generators:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in generators:
        line = process.stdout.readline()
        if not line:
            raise Failed(f"a generator: {reason(process.stderr.read())}")
        results.append(json.loads(line))
    return summary(results)


def summary(results):
    first = results[0]
    deliveries = sum(result["deliveries"] for result in results)
    seconds = max(result["seconds"] for result in results)
    return {
        "bytes_per_connection": first["bytes_after"] / sum(result["connections"] for result in results),
        "first_publication_seconds": max(result["first_seconds"] for result in results),
        "publications": PUBLICATIONS,
        "deliveries": deliveries,
        "per_second": deliveries / seconds,
        "cpu_us": max(result["server_cpu_seconds"] for result in results) / deliveries * 1e6,
    }
