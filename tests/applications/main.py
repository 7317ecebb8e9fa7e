#!/usr/bin/env python3
"""Tests real applications with their own clients: main.py BINARY CACHE [--chromium PROGRAM] [WORD…]

Each folder here is a scenario: `server.*` is the application, and `client.*` uses it as its own client library does,
fails if anything is not as it should be, and prints what it saw. A client runs twice, against the application and
against the gateway in front of it, and must see the same. `strangers.*` shows whom the gateway refuses. The gateway's
config is the block of docs/pass-through.md with `file=SCENARIO.toml`. With words, only scenarios whose name has one of
them are run.

Packages from PyPI and npm are installed in CACHE, in the versions of requirements.txt and package.json.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateways
import packages
import processes

HERE = Path(__file__).resolve().parent
# A scenario takes a few seconds, this long only if the machine is very busy.
CLIENT_DEADLINE = 120
# Most of the time a scenario waits for programs to start.
AT_ONCE = 3
BROWSER = ["vite"]


class Scenario:
    """An application and its client, copied into a folder where Node finds the packages."""

    def __init__(self, name, folder, node):
        self.name, self.folder = name, folder / name
        shutil.copytree(HERE / name, self.folder)
        (self.folder / "node_modules").symlink_to(node / "node_modules")

    def command(self, program):
        script = next(self.folder.glob(f"{program}.*"))
        return [sys.executable if script.suffix == ".py" else "node", script]

    def start(self, stack):
        port = processes.free_port()
        server = stack.start(self.name, self.command("server"), cwd=self.folder, PORT=str(port))
        server.wait_for_port(port)
        return port

    def has(self, program):
        return any(self.folder.glob(f"{program}.*"))

    def use(self, program, url, **variables):
        """Runs a client, and returns its output."""
        variables = variables | {"URL": url, "TOKEN": gateways.session_token()}
        with tempfile.TemporaryFile("w+") as output:
            client = processes.start(self.command(program), output, self.folder, variables)
            try:
                code = client.wait(CLIENT_DEADLINE)
            except subprocess.TimeoutExpired:
                code = f"none within {CLIENT_DEADLINE} s"
            finally:
                processes.end_session(client)
            output.seek(0)
            printed = output.read()
        assert code == 0, f"the {program} of {self.name} at {url}: exit code {code}\n{printed}"
        return printed

    def look(self, url, **variables):
        """Returns what the client saw, which it prints at its end."""
        return json.loads(self.use("client", url, **variables).splitlines()[-1])


def run(scenario, binary, folder, variables):
    """Returns what the client saw, directly and through the gateway."""
    with processes.Stack(folder / f"{scenario.name}-logs") as stack:
        try:
            port = scenario.start(stack)
            directly = scenario.look(f"http://127.0.0.1:{port}", **variables)
            with gateways.Gateway(binary, scenario.name, port, stack) as gateway:
                through = scenario.look(gateway.url, **variables)
                # A client that also finds the way around the gateway has shown nothing.
                admitted = gateway.handshakes("admitted")
                if scenario.has("strangers"):
                    scenario.use("strangers", gateway.url)
            assert directly == through, f"directly: {directly}\nthrough the gateway: {through}"
            assert admitted > 0, "no WebSocket went through the gateway"
        except BaseException:
            print(stack.logs(), flush=True)
            raise
    return directly


def passes(scenario, *arguments):
    began = time.monotonic()
    try:
        seen = run(scenario, *arguments)
    except Exception:
        print(f"FAILED: {scenario.name}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"ok: {scenario.name} ({time.monotonic() - began:.1f} s): {json.dumps(seen)}", flush=True)
    return True


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--chromium", default="")
    parser.add_argument("words", nargs="*")
    return parser.parse_intermixed_args()


def main():
    options = parse()
    cache = options.cache.resolve()
    venv = packages.python(cache / "applications-venv", HERE / "requirements.txt")
    if Path(sys.prefix) != venv:
        os.execv(venv / "bin" / "python", [str(venv / "bin" / "python"), *sys.argv])
    if not shutil.which("npm"):
        print("SKIPPED: npm is not installed, so the applications were NOT tested")
        return
    node = packages.node(cache / "applications-node", HERE / "package.json")
    names = sorted(path.parent.name for path in HERE.glob("*/client.*"))
    assert names == gateways.recipes(), (names, gateways.recipes())
    names = [name for name in names if not options.words or any(word in name for word in options.words)]
    if not options.chromium:
        print(f"SKIPPED: there is no Chromium, so {', '.join(BROWSER)} was NOT tested")
        names = [name for name in names if name not in BROWSER]
    variables = {"CHROMIUM": options.chromium, "CLIENTS": str(HERE.parent / "clients")}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as threads:
        folder = Path(folder)
        scenarios = [Scenario(name, folder, node) for name in names]
        passed = threads.map(lambda scenario: passes(scenario, options.binary.resolve(), folder, variables), scenarios)
        try:
            failed = list(passed).count(False)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            processes.end_all()
            raise
    if failed:
        raise SystemExit(f"{failed} failed")


if __name__ == "__main__":
    # When this process is terminated, it stops the processes that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
