#!/usr/bin/env python3
"""Tests nodes that leave or die under streaming replies, with the real libraries: main.py BINARY CACHE [OPTION…]

Needs redis-server; CACHE is the directory for the virtual environment. Several conversations at once have a reply of
numbered chunks each, from a Celery worker through the channel layer, while all nodes are replaced one after the other,
or one is killed at a random moment. Each client notes everything that it is sent; afterwards chunks lost, repeated, and
the ends of each reply are counted. No client may lose or repeat anything without being told, and after a replacement
none may be told either.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "examples" / "django"), str(HERE.parent)]

import stack  # noqa: E402

MORE = ("websockets>=13,<17", "cryptography>=42")


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="how often a node is killed on each layer")
    parser.add_argument("--layer", choices=("core", "pubsub"), help="only this layer")
    parser.add_argument("--conversations", type=int, default=10, help="replies at once")
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.06, help="seconds between two chunks")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--only", choices=("replace", "kill", "calm"), help="only these rounds; calm: no event")
    parser.add_argument("--clients", help="only clients of this kind: see rounds.KINDS")
    parser.add_argument("--returns", help="only clients that come back so: see client.RETURNS")
    parser.add_argument("--isolated", action="store_true", help="wait after each event until all its effects are over")
    parser.add_argument("--log-level", default="info", help="of the gateways")
    parser.add_argument("--keep", type=Path, help="a directory for the logs and timelines")
    return parser.parse_args()


async def run(chosen, directory):
    import rounds
    from report import Report

    report = Report(directory)
    layers = [chosen.layer] if chosen.layer else ["core", "pubsub"]
    print(f"seed {chosen.seed}", flush=True)
    tests = (rounds.run(chosen, layer, directory, random.Random(f"{chosen.seed} {layer}"), report) for layer in layers)
    await asyncio.gather(*tests)
    return report.finish()


def main():
    chosen = options()
    assert chosen.binary.exists(), f"there is no {chosen.binary}"
    python = stack.environment(chosen.cache.resolve() / "django-venv", *MORE)
    if Path(sys.executable).parent != python.parent:
        arguments = [str(chosen.binary.resolve()), str(chosen.cache.resolve()), *sys.argv[3:]]
        os.execv(python, [str(python), __file__, *arguments])
    with tempfile.TemporaryDirectory() as folder:
        directory = chosen.keep or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        failed = asyncio.run(run(chosen, directory.resolve()))
    if failed:
        raise SystemExit(f"{failed} clients failed; seed {chosen.seed}")


if __name__ == "__main__":
    main()
