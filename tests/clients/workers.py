"""Workers in each language publish with history, and a client of the gateway follows them.

workers.py BINARY CACHE: needs redis-server, and the Python packages redis and websockets. Languages that
are not installed are named as skipped.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from websockets.sync.client import connect

import demo

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "clients" / "redis"
IOREDIS = "ioredis@5.8.2"
GO_REDIS = "github.com/redis/go-redis/v9@v9.7.0"
EVENTS = [json.dumps({"event": "chunk", "chunk": text}) for text in ("a", "“b”", "c\n")]


def python(cache):
    return [sys.executable, str(SCRIPTS / "publish.py")]


def node(cache):
    """Copies the script into the cache, since Node looks for modules beside the script."""
    folder = cache / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "ioredis").is_dir():
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, IOREDIS]
        subprocess.run(install, check=True)
    for name in ("publish.mjs", "publish.lua"):
        shutil.copy(SCRIPTS / name, folder)
    return ["node", str(folder / "publish.mjs")]


def go(cache):
    folder = cache / "go"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("publish.go", "publish.lua"):
        shutil.copy(SCRIPTS / name, folder)
    if not (folder / "go.mod").is_file():
        subprocess.run(["go", "mod", "init", "publish"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["go", "get", GO_REDIS], cwd=folder, check=True, capture_output=True)
    subprocess.run(["go", "build", "-o", "publish", "."], cwd=folder, check=True)
    return [str(folder / "publish")]


LANGUAGES = {"python": (python, "python3"), "node": (node, "npm"), "go": (go, "go")}


@contextlib.contextmanager
def process(arguments, **options):
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, **options)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def gateway(binary):
    """Runs a gateway with its own Redis, and yields the URLs of both."""
    public, admin, redis_port = (demo.free_port() for _ in range(3))
    redis_url = f"redis://127.0.0.1:{redis_port}"
    config = f"""
[server]
listen = "127.0.0.1:{public}"
[admin]
listen = "127.0.0.1:{admin}"
[engine]
kind = "redis"
[engine.redis]
url = "{redis_url}"
[log]
level = "warn"
[[route]]
path = "/ws/{{name}}/"
channel = "chat_{{name}}"
upstream = ""
auth = ["anonymous"]
"""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "gateway.toml")
        pathlib.Path(path).write_text(config)
        redis = ["redis-server", "--port", str(redis_port), "--save", "", "--dir", directory]
        with process(redis), process([binary, "serve", "--config", path]) as running:
            found = demo.Demo(public, admin)
            demo.wait_until_ready(found, running)
            yield found.socket, redis_url


def follow(socket, position, count):
    for number in range(count):
        frame = json.loads(socket.recv(timeout=demo.DEADLINE))
        assert frame["offset"] == position["offset"] + 1, frame
        assert {**json.loads(EVENTS[number]), "offset": frame["offset"]}.items() <= frame.items()
        position["offset"] = frame["offset"]


def check(url, redis_url, name, command):
    with connect(f"{url}/ws/{name}/") as socket:
        position = json.loads(socket.recv(timeout=demo.DEADLINE))
        worker = [*command, redis_url, f"chat_{name}", *EVENTS]
        output = subprocess.run(worker, check=True, capture_output=True, text=True, timeout=60).stdout
        assert output.split() == [word for n in (1, 2, 3) for word in (position["epoch"], str(n))], output
        follow(socket, position, 2)
    # The client disconnected before the third chunk, and the worker continues.
    subprocess.run(worker, check=True, capture_output=True, timeout=60)
    since = f"since={position['offset']}&epoch={position['epoch']}"
    with connect(f"{url}/ws/{name}/?{since}") as socket:
        connected = json.loads(socket.recv(timeout=demo.DEADLINE))
        assert (connected["recovered"], connected["missed"]) == (True, 4), connected
        third = json.loads(socket.recv(timeout=demo.DEADLINE))
        assert (third["chunk"], third["offset"]) == ("c\n", 3), third
        follow(socket, {"offset": 3}, 3)


def main():
    binary, cache = sys.argv[1], pathlib.Path(sys.argv[2])
    with gateway(binary) as (url, redis_url):
        for name, (prepare, program) in LANGUAGES.items():
            if shutil.which(program):
                check(url, redis_url, name, prepare(cache))
                print(f"ok: a {name} worker")
            else:
                print(f"SKIPPED: {program} is not installed, so the {name} worker was NOT tested")


if __name__ == "__main__":
    main()
