"""A gateway for these tests, on either engine, with clients on it."""

import contextlib
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from websockets.sync.client import connect

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
from free_port import free_port  # noqa: E402

KEY = "a key of the tests"
SECRET = "0123456789abcdef0123456789abcdef"

CONFIG = """
[server]
listen = "127.0.0.1:0"
threads = 2
[admin]
listen = "127.0.0.1:0"
api_keys = {keys}
[shutdown]
drain = "1s"
[log]
format = "json"
[engine]
kind = "{engine}"
max_publication_bytes = "64KiB"
{redis}
[jwt]
keys = [{{ alg = "HS256", secret = "{secret}" }}]
[origins]
allow = []
[[route]]
path = "/ws/chat/{{conversation_id}}/"
channel = "chat_{{conversation_id}}"
auth = ["connection_token", "query", "anonymous"]
presence = "events"
{upstream}
{route}
[[route]]
path = "/ws/plain/{{name}}/"
channel = "plain_{{name}}"
auth = ["anonymous"]
[route.history]
size = 0
[route.limits]
messages_per_user = {{ limit = "50/1h", window = "fixed", key = "app:{{name}}:{{user_id}}" }}
{more}
"""


@contextlib.contextmanager
def engine(kind):
    """The config lines of the engine. For "redis", a Redis server is started."""
    if kind == "memory":
        yield ""
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"],
            cwd=directory, stdout=subprocess.DEVNULL,
        )
        try:
            yield f'[engine.redis]\nurl = "redis://127.0.0.1:{port}"\n'
        finally:
            server.kill()
            server.wait()


class Gateway:
    """A running gateway whose log is read while it runs."""

    def __init__(self, binary, kind, redis, keys=(KEY,), upstream="", route="", more=""):
        self.directory = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.directory.name) / "gateway.toml"
        config.write_text(CONFIG.format(
            keys=json.dumps(list(keys)), engine=kind, redis=redis, secret=SECRET,
            upstream=upstream, route=route, more=more,
        ))
        self.process = subprocess.Popen(
            [binary, "serve", "--config", config], stderr=subprocess.PIPE, text=True
        )
        self.lines, self.log = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        listening = self.wait_for("listening")
        self.public, self.admin = listening["public"], listening["admin"]
        self.url = f"http://{self.admin}"
        until("ready gateway", lambda: self.call("GET", "/readyz")[0] == 200)

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            self.lines.put(line)

    def wait_for(self, event):
        deadline = time.monotonic() + 30
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise SystemExit(f"no {event} in\n{''.join(self.log)}") from None
            if f'"{event}"' in line and json.loads(line).get("event") == event:
                return json.loads(line)

    def call(self, method, path, body=None, key=KEY, headers=()):
        """Returns status, headers and body of the answer."""
        request = urllib.request.Request(self.url + path, method=method, headers=dict(headers))
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, refused.read()

    def api(self, path, body):
        status, _, answer = self.call("POST", path, body)
        assert status == 200, (path, status, answer)
        return json.loads(answer)

    def open(self, path, **query):
        """Opens a client's WebSocket."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return connect(f"ws://{self.public}{path}?{text}", open_timeout=30, close_timeout=5,
                       ping_interval=None, max_queue=None)

    def token(self, **user):
        return self.api("/v1/tokens", user)["connection_token"]

    def wait_exit(self):
        return self.process.wait(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # A gateway that is killed counts as one that does not answer, for a minute.
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        if kind is not None and kind is not SystemExit:
            print("".join(self.log[-40:]))
        self.directory.cleanup()


def until(what, condition, deadline=30):
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"no {what} within {deadline} s")
        time.sleep(0.02)
