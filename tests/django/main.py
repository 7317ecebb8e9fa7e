#!/usr/bin/env python3
"""Tests the Django example through the gateway, with the real libraries: main.py BINARY CACHE [WORD…]

Makes a virtual environment in the directory CACHE and runs in it; needs redis-server. With words, only tests
whose name has one of them are run: "core, django: test_the_page", or a part of that. With OLDEST=1 the libraries
are those of oldest.txt.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "django"))

import stack  # noqa: E402

# cryptography, for layers that are encrypted.
MORE = ("websockets>=13,<17", "cryptography>=42")
LAYERS = ("core", "pubsub")
CACHES = ("django", "django-redis", "django-redis-json")


def cases(module):
    return [value for name, value in vars(module).items() if name.startswith("test_")]


def plan():
    """Yields (world's class, layer, cache, tests). Tests that depend on neither layer nor cache run once."""
    import failing
    import layers
    import page
    import renamed
    import same
    import signing_in
    import silent
    from world import World

    for layer in LAYERS:
        for cache in CACHES:
            tests = cases(same) + cases(signing_in)
            if cache == CACHES[0]:
                tests += cases(layers) + cases(silent)
                if layer == LAYERS[0]:
                    tests += cases(failing) + cases(page)
            yield World, layer, cache, tests
    for layer in LAYERS:
        for cache in (CACHES[0], CACHES[-1]):
            yield renamed.RenamedWorld, layer, cache, cases(renamed)


def run(binary, words):
    from world import database

    failed = 0
    with tempfile.TemporaryDirectory() as folder, stack.Stack(sys.executable, folder) as shared:
        shared.redis()
        database(Path(folder), sys.executable)
        for world_class, layer, cache, tests in plan():
            kind = "" if world_class.__name__ == "World" else "renamed, "
            tests = [(f"{kind}{layer}, {cache}: {test.__name__}", test) for test in tests]
            tests = [(name, test) for name, test in tests if not words or any(word in name for word in words)]
            if not tests:
                continue
            directory = Path(folder) / f"{kind.strip(', ')}{layer}-{cache}"
            directory.mkdir()
            with world_class(binary, directory, shared.redis_url, layer, cache) as world:
                for name, test in tests:
                    failed += not passes(test, world, name)
    return failed


def passes(test, world, name):
    began = time.monotonic()
    try:
        test(world)
    except Exception:
        print(f"FAILED: {name}\n{traceback.format_exc()}", flush=True)
        for process in world.stack.processes:
            print(f"--- {process.name} said:\n{process.read_log()[-1000:]}", flush=True)
        return False
    print(f"ok: {name} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def pinned():
    lines = (HERE / "oldest.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def main():
    binary, cache, *words = sys.argv[1:]
    oldest = os.environ.get("OLDEST") == "1"
    directory = Path(cache).resolve() / ("django-venv-oldest" if oldest else "django-venv")
    # setuptools provides pkg_resources, which the oldest versions import.
    python = stack.environment(directory, *MORE, *((*pinned(), "setuptools<81") if oldest else ()))
    if Path(sys.executable).parent != python.parent:
        os.execv(python, [str(python), __file__, str(Path(binary).resolve()), cache, *words])
    failed = run(Path(binary), words)
    if failed:
        raise SystemExit(f"{failed} failed")


if __name__ == "__main__":
    # When this process is terminated, it stops the processes that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
