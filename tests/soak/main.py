#!/usr/bin/env python3
"""A soak: clients come, go, are cut and resume, while the faults of docs/reliability.md happen one after the other.

    tests/soak/main.py BINARY [--seconds 600] [--clients 200] [--every 15] [--only FAULT…]

Two gateways share a Redis with a replica; all is on loopback. Each channel has a numbered stream, and each client must
get it in order, once and whole, or be told that it was not. At the end all clients leave, and memory, descriptors, threads
and connections of each gateway that has lived through it must be back at the level of a short phase before. Prints what
happened, how long each recovery took, and the levels. Needs redis-server and openssl, and the Python packages websockets and
redis.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from clients import Followers
from faults import FAULTS
from world import World

# The levels of a gateway that are compared, and how much higher they may be: as a ratio, and added to it.
LEVELS = {
    "process_resident_memory_bytes": (1.25, 8 << 20),
    "process_open_fds": (1.0, 4),
    "process_threads": (1.0, 1),
    "tidegate_client_sockets": (1.0, 0),
    "tidegate_connections": (1.0, 0),
}
SETTLE_SECONDS = 60


async def levels(world: World) -> dict[str, dict[str, float]]:
    return {node.name: await node.gauges(LEVELS) for node in world.nodes}


def higher(before: dict[str, float], now: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The levels that are above what they may be, with what they were."""
    return {
        name: (before[name], now[name])
        for name, (ratio, more) in LEVELS.items()
        if now[name] > before[name] * ratio + more
    }


async def warm_up(world: World, clients: int) -> dict[str, dict[str, float]]:
    """Serves once as many clients as the soak does, so that what a process keeps for good is there."""
    followers = Followers(world, clients)
    await followers.run(min(10.0, world.options.seconds / 4))
    await followers.leave()
    # What is kept for a while after a client has left is gone.
    await asyncio.sleep(8)
    return await levels(world)


async def make_faults(world: World, until: float) -> list[str]:
    """Makes one fault after the other, in a random order of all of them. Returns what did not recover."""
    wanted = [fault for fault in FAULTS if not world.options.only or fault.__name__ in world.options.only]
    failed, queue = [], []
    while time.monotonic() < until:
        queue = queue or random.sample(wanted, len(wanted))
        fault = queue.pop()
        began = time.monotonic()
        try:
            await fault(world)
            await world.ready()
            print(f"{fault.__name__}: over after {time.monotonic() - began:.1f} s", flush=True)
        except (TimeoutError, AssertionError, OSError) as error:
            failed.append(f"{fault.__name__}: {error!r}")
            print(f"FAILED: {failed[-1]}", flush=True)
        await asyncio.sleep(world.options.every)
    return failed


async def soak(options: argparse.Namespace, folder: Path) -> list[str]:
    async with World(options, folder) as world:
        before = await warm_up(world, options.clients)
        print("before:", before, flush=True)
        followers = Followers(world, options.clients)
        running = asyncio.create_task(followers.run(options.seconds))
        faults = await make_faults(world, time.monotonic() + options.seconds)
        await running
        await world.ready()
        await followers.finish()
        print(followers.summary(), flush=True)
        faults += followers.faults[:20]
        if not followers.counts["whole streams"]:
            faults.append("no client saw a whole stream")
        await followers.leave()
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            now = await levels(world)
            above = {name: higher(before[name], now[name]) for name in now}
            if not any(above.values()) or time.monotonic() > deadline:
                break
            await asyncio.sleep(2)
        print("after:", now, flush=True)
        for name, found in above.items():
            faults += [f"{name}: {level} is {now:.0f} and was {then:.0f}" for level, (then, now) in found.items()]
        for node in world.nodes:
            panics = node.lines('"event":"panic"')
            faults += [f"{node.name}: {line}" for line in panics]
        return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--every", type=float, default=15, help="seconds between two faults")
    parser.add_argument("--only", nargs="*", default=[], help="these faults; all by default")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options = parser.parse_args()
    random.seed(options.seed)
    print("seed", options.seed, flush=True)
    # An operator's or CI's signal ends the processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by a signal"))
    with tempfile.TemporaryDirectory() as folder:
        faults = asyncio.run(soak(options, Path(folder)))
    if faults:
        print("\n".join(["FAILED:", *faults]), file=sys.stderr)
        raise SystemExit(1)
    print("passed")


if __name__ == "__main__":
    main()
