#!/usr/bin/env python3
"""A soak: hostile clients of all kinds at once, while honest ones connect, send and receive.

    tests/hostile/main.py BINARY [--seconds 600] [--only KIND…] [--latency]

Everything runs on loopback, each hostile kind at an address of its own (127.0.1.x). Fails if an honest client meets an
error, or if memory, descriptors, threads and connections do not come back to the level before. With --latency it also
fails if the 99th percentile of honest replies is more than twice that of the quiet phase, which needs a machine with
cores to spare. Needs Python 3.11, and no packages.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import attacks
import honest
import upstream
from gateway import Gateway, read_gauges
from wire import call, request

PAGES, LISTENERS = 40, 10
# How much more than before there may be afterwards: idle connections to the upstream and threads that end later are
# not leaks, and an allocator keeps some pages.
SLACK = {"process_open_fds": 24, "process_threads": 4, "process_resident_memory_bytes": 48 << 20,
         "tidegate_client_sockets": 0, "tidegate_connections": 0}
SETTLE_SECONDS = 90


async def gauges(gateway: Gateway) -> dict[str, float]:
    status, body = await call("127.0.0.3", gateway.admin, request("GET", "/metrics"))
    assert status == 200, status
    return read_gauges(body.decode())


async def honest_phase(gateway: Gateway, seconds: float) -> honest.Notes:
    notes, stop = honest.Notes(), asyncio.Event()
    tasks = [honest.Page(number, gateway.public, notes).run(stop) for number in range(PAGES)]
    tasks += [honest.listen(number, gateway.public, notes, stop) for number in range(LISTENERS)]
    publisher = asyncio.create_task(honest.publish(gateway.admin, notes, asyncio.Event()))
    running = [asyncio.create_task(task) for task in tasks]
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*running)
    publisher.cancel()
    return notes


def report(phase: str, notes: honest.Notes) -> None:
    print(f"{phase}: {notes.connects} connects, {len(notes.replies)} replies (median {notes.percentile(0.5)} ms, "
          f"p99 {notes.percentile(0.99)} ms), {notes.publications} publications, {len(notes.errors)} errors", flush=True)


async def settled(gateway: Gateway, before: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Waits until the levels are back; returns those that are not, with the level before."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        now = await gauges(gateway)
        higher = {name: (level, before[name]) for name, level in now.items() if level > before[name] + SLACK[name]}
        if not higher or time.monotonic() > deadline:
            shown = ", ".join(f"{name} {before[name]:.0f} to {level:.0f}" for name, level in now.items())
            print(f"afterwards: {shown}", flush=True)
            return higher
        await asyncio.sleep(1)


def start_attackers(gateway: Gateway, floods: bool, only: list[str]) -> subprocess.Popen[bytes]:
    arguments = json.dumps([gateway.public, gateway.admin, floods, only])
    return subprocess.Popen([sys.executable, __file__, "attack", arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def soak(options: argparse.Namespace, gateway: Gateway) -> list[str]:
    quiet = await honest_phase(gateway, min(options.seconds / 4, 30))
    report("quiet", quiet)
    await asyncio.sleep(1)
    before = await gauges(gateway)
    attackers = [start_attackers(gateway, floods, options.only) for floods in (True, False)]
    notes = await honest_phase(gateway, options.seconds)
    report("hostile", notes)
    began = {name: count for process in attackers for name, count in json.loads(process.communicate()[0]).items()}
    print("attacks:", ", ".join(f"{name} {count}" for name, count in sorted(began.items())), flush=True)
    higher = await settled(gateway, before)
    print("log:", gateway.events(), flush=True)
    faults = quiet.errors[:20] + notes.errors[:20]
    faults += [f"{name} is {now:.0f} and was {then:.0f}" for name, (now, then) in higher.items()]
    if not notes.replies:
        faults.append("no honest client had a reply")
    if gateway.process.poll() is not None:
        faults.append(f"the gateway ended with {gateway.process.returncode}")
    ratio = notes.percentile(0.99) / max(quiet.percentile(0.99), 1.0)
    print(f"p99 of honest replies: {ratio:.1f} times the quiet one")
    if options.latency and ratio > 2:
        faults.append(f"p99 of honest replies: {ratio:.1f} times the quiet one")
    return faults


def main() -> None:
    if sys.argv[1:2] == ["attack"]:
        public, admin, floods, only = json.loads(sys.argv[2])
        asyncio.run(attacks.attack(tuple(public), tuple(admin), floods, only))
        return
    if sys.argv[1:] == ["upstream"]:
        asyncio.run(upstream.serve())
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", nargs="*", default=[], help="the kinds of attacks; all by default")
    parser.add_argument("--latency", action="store_true")
    options = parser.parse_args()
    backend = subprocess.Popen([sys.executable, __file__, "upstream"], stdout=subprocess.PIPE, text=True)
    gateway = None
    try:
        gateway = Gateway(str(options.binary), f"http://127.0.0.1:{int(backend.stdout.readline())}")
        faults = asyncio.run(soak(options, gateway))
        if faults:
            print("\n".join(["FAILED:", *faults]), file=sys.stderr)
            raise SystemExit(1)
    finally:
        if gateway:
            gateway.stop()
        backend.kill()
    print("passed")


if __name__ == "__main__":
    main()
