"""Starts an example: the API, the gateway in front of it, and a web server for the page. Ctrl-C stops everything.

TIDEGATE is the gateway's binary; without it, cargo builds one. PORT is the port of the page; without it, it is 8000, or
another one if that is taken. Packages are installed in the user's cache, or are those of PYTHON (a Python) and
NODE_MODULES (a folder) if these are set.
"""

import functools
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from free_port import free_port, is_free

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate-examples"
START_DEADLINE = 60


def gateway():
    if given := os.environ.get("TIDEGATE"):
        return Path(given).resolve()
    repository = HERE.parent
    print("Building the gateway, which takes a few minutes the first time", flush=True)
    run_tool(["cargo", "build", "--release", "--locked", "--bin", "tidegate"], cwd=repository)
    return Path(os.environ.get("CARGO_TARGET_DIR", repository / "target")).resolve() / "release" / "tidegate"


def run_tool(command, cwd=None):
    try:
        subprocess.run(command, cwd=cwd, check=True)
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[0]} failed: see above") from None


def installed(folder, wanted, install):
    mark = folder / "installed"
    if not mark.is_file() or mark.read_bytes() != wanted:
        print(f"Installing packages in {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        install()
        mark.write_bytes(wanted)


def python(example):
    """A Python with the example's packages."""
    if given := os.environ.get("PYTHON"):
        return Path(given)
    requirements = example / "requirements.txt"
    if not requirements.is_file():
        return Path(sys.executable)
    folder = CACHE / example.name

    def install():
        run_tool([sys.executable, "-m", "venv", "--clear", folder])
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_tool([*pip, "-r", requirements])

    installed(folder, requirements.read_bytes(), install)
    return folder / "bin" / "python"


def node_modules(example):
    """A folder with the example's script, from which Node finds its packages."""
    folder = CACHE / example.name
    folder.mkdir(parents=True, exist_ok=True)
    if given := os.environ.get("NODE_MODULES"):
        return Path(given)
    package = example / "package.json"

    def install():
        shutil.copy(package, folder)
        run_tool(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder)

    installed(folder, package.read_bytes(), install)
    return folder / "node_modules"


def page_port():
    if given := os.environ.get("PORT"):
        if not is_free(int(given)):
            raise SystemExit(f"PORT={given}: another process listens there")
        return int(given)
    return 8000 if is_free(8000) else free_port()


def wait_for(process, port):
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{' '.join(process.args)} does not listen: see above")


class Pages(http.server.SimpleHTTPRequestHandler):
    """The page, and what it imports from the example's folder."""

    def translate_path(self, path):
        name = Path(urllib.parse.urlsplit(path).path).name
        own = Path(self.directory) / name
        return str(own if own.suffix == ".js" and own.is_file() else HERE / "page" / name)

    def log_message(self, *_):
        pass


def serve_page(example):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=example))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def run(example, command, path="", folder=None):
    """Runs an example until Ctrl-C. `command` returns what starts its API on a port; it runs in `folder`, if there is one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes = []

    def start(command, port, cwd, **variables):
        command = [str(part) for part in command]
        try:
            # Ctrl-C is for this process alone, which ends the others.
            process = subprocess.Popen(command, cwd=cwd, env=os.environ | variables, start_new_session=True)
        except FileNotFoundError:
            raise SystemExit(f"{command[0]} is not installed") from None
        processes.append(process)
        wait_for(process, port)

    try:
        port, binary = page_port(), gateway()
        variables = {}
        if "API_URL" not in os.environ:
            api = free_port()
            start(command(api), api, folder or example, PORT=str(api))
            variables["API_URL"] = f"http://127.0.0.1:{api}{path}"
        origin = f"http://localhost:{port}"
        start(
            [binary, "serve", "--config", "gateway.toml"], port, example,
            **variables, ORIGIN=origin, PAGE_URL=serve_page(example),
            TIDEGATE__SERVER__LISTEN=f"127.0.0.1:{port}", TIDEGATE__ADMIN__LISTEN="127.0.0.1:0",
            # Tabs that are still open do not delay Ctrl-C, and no more are needed.
            TIDEGATE__SHUTDOWN__DRAIN="100ms", TIDEGATE__SHUTDOWN__GRACE="1s", TIDEGATE__SERVER__MAX_CONNECTIONS="1000",
        )
        print(f"\n  {origin}/   open it in two tabs. Ctrl-C stops everything.\n", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
        raise SystemExit("one of the processes has ended by itself")
    except KeyboardInterrupt:
        pass
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            process.wait()
