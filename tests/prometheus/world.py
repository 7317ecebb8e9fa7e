"""The environment: a Redis, an API that replies, two gateways (memory and Redis engine) and one with TLS, and a
Prometheus with the shipped rules. All use free ports and a temporary folder, and are stopped at the end."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples"))
from free_port import free_port  # noqa: E402
DEADLINE = 30
KEY = "key-of-the-test"
SECRET = "secret-of-the-test-secret-of-the-test"
ORIGIN = "https://app.example.com"


def until(what, condition, deadline=DEADLINE):
    """Waits for the first true value of `condition`, which may raise until then."""
    ends = time.monotonic() + deadline
    while True:
        error = None
        try:
            if value := condition():
                return value
        except (OSError, redis.RedisError) as failure:
            error = failure
        if time.monotonic() > ends:
            raise AssertionError(f"not within {deadline} s: {what}: {error}")
        time.sleep(0.05)


def ask(url, body=None, headers=None, form=False):
    """Returns the status and body of an HTTP answer, whatever the status is."""
    data = None
    if body is not None:
        data = urllib.parse.urlencode(body).encode() if form else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def jwt(user):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"user_id": user, "exp": int(time.time()) + 600}
    text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(SECRET.encode(), text, hashlib.sha256).digest())).decode()


class Reply(http.server.BaseHTTPRequestHandler):
    """The API behind the gateway. The first word of a message chooses the answer."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({"/error": 500, "/missing": 404}.get(self.path, 200))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/ended":
            return self.answer(200 if body["outcome"] == "completed" else 400)
        match body["message"].split()[0]:
            case "refuse":
                self.answer(400, b'{"error":"not this one"}')
            case "fail":
                self.answer(503)
            case "break":
                self.stream(2, ends=False)
            case "think":
                time.sleep(0.4)
                self.stream(10)
            case _:
                self.stream(20)

    def answer(self, status, body=b"{}"):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, chunks, ends=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = not ends
        with contextlib.suppress(OSError):
            for n in range(chunks):
                time.sleep(0.02)
                self.event({"event": "chunk", "chunk": f"word {n} "})
            if ends:
                self.event({"event": "complete"})
                self.wfile.write(b"0\r\n\r\n")

    def event(self, event):
        data = f"data: {json.dumps(event)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


CONFIG = """
[server]
listen = "127.0.0.1:{public}"
max_connections = 1000
[admin]
listen = "127.0.0.1:{admin}"
api_keys = ["{key}"]
[shutdown]
drain = "1s"
grace = "2s"
[jwt]
keys = [{{ alg = "HS256", secret = "{secret}" }}]
jwks_url = "http://127.0.0.1:{api}/missing"
[origins]
allow = ["{origin}"]
[proxy]
upstream = "http://127.0.0.1:{api}"
[log]
level = "warn"
{engine}

[[route]]
path = "/ws/chat/{{conversation_id}}/"
channel = "chat_{{conversation_id}}"
upstream = "api"
presence = "on"
{limits}

[[route]]
path = "/ws/limited/{{conversation_id}}/"
channel = "limited_{{conversation_id}}"
upstream = "api"
send_queue = {{ messages = 8, bytes = "64KiB" }}
[route.limits]
messages_per_user = "2/1h"

[[route]]
path = "/ws/failing/{{conversation_id}}/"
channel = "failing_{{conversation_id}}"
upstream = "nobody"
{limits}

[upstream.api]
kind = "http"
url = "http://127.0.0.1:{api}/reply"
retries = 1
on_complete = {{ url = "http://127.0.0.1:{api}/ended" }}

[upstream.nobody]
kind = "http"
url = "http://127.0.0.1:{nobody}/"
retries = 1
circuit = {{ failures = 3, window = "10s", open = "1s" }}
"""

LIMITS = """[route.limits]
messages_per_user = "off"
messages_per_connection = "off"
connects_per_user = "off"
connections_per_user = 0
generations_per_user = 0"""

MEMORY = """
[engine]
kind = "memory"
"""

REDIS = """
[engine]
kind = "redis"
[engine.redis]
url = "redis://127.0.0.1:{redis}"
wire = "channels-core"
[engine.redis.channels]
serializer = "json"

[[route]]
path = "/ws/task/{{conversation_id}}/"
channel = "task_{{conversation_id}}"
upstream = "tasks"
{limits}

[upstream.tasks]
kind = "celery"
broker_url = "redis://127.0.0.1:{redis}/1"
result_backend_url = "redis://127.0.0.1:{redis}/1"
task = "tasks.reply"
kwargs = {{ message = "{{message}}" }}
"""


TLS = f"""
[server.tls]
certificate = "{ROOT}/tests/keys/redis_tls/server.pem"
key = "{ROOT}/tests/keys/redis_tls/server.key"
"""


class Gateway:
    def __init__(self, stack, folder, name, binary, api, redis_port, more=""):
        self.public, self.admin = free_port(), free_port()
        self.engine = name
        engine = MEMORY if redis_port is None else REDIS.format(redis=redis_port, limits=LIMITS)
        self.config = folder / f"{name}.toml"
        self.good = CONFIG.format(
            public=self.public,
            admin=self.admin,
            api=api,
            nobody=free_port(),
            engine=engine,
            limits=LIMITS,
            key=KEY,
            secret=SECRET,
            origin=ORIGIN,
        ) + more
        self.config.write_text(self.good)
        self.log = folder / f"{name}.log"
        log = stack.enter_context(open(self.log, "w"))
        self.process = running(stack, [binary, "serve", "--config", self.config], log)
        self.instance = f"127.0.0.1:{self.admin}"

    def url(self, path):
        return f"ws://127.0.0.1:{self.public}{path}"

    def get(self, path):
        return ask(f"http://127.0.0.1:{self.public}{path}")

    def api(self, call, body=None, key=KEY):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return ask(f"http://127.0.0.1:{self.admin}/v1/{call}", body, headers)

    def disturb(self):
        """Sends something that is not HTTP to the public port."""
        with socket.create_connection(("127.0.0.1", self.public), DEADLINE) as stranger:
            stranger.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            while stranger.recv(1024):
                pass

    def reload(self, text):
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def value(self, metric):
        """Returns the sum of all series of a metric in one scrape."""
        _, text = ask(f"http://127.0.0.1:{self.admin}/metrics")
        series = re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)$", text, re.M)
        return sum(map(float, series))

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway has ended: {self.log.read_text()}")
        # Grafana and the alerts use the last result of /readyz.
        return ask(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200


def running(stack, command, log):
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop():
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    return process


PROMETHEUS = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: tidegate
    static_configs:
      - targets: {targets}
"""


class Prometheus:
    def __init__(self, stack, folder, binaries, targets):
        config = folder / "prometheus.yml"
        rules = ROOT / "deploy/prometheus/alerts.yml"
        config.write_text(PROMETHEUS.format(rules=rules, targets=json.dumps(targets)))
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        log = stack.enter_context(open(folder / "prometheus.log", "w+"))
        command = [
            binaries / "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        running(stack, command, log)
        until("Prometheus is ready", lambda: ask(f"{self.base}/-/ready")[0] == 200)

    def call(self, path, **parameters):
        """Returns the `data` of an answer of the HTTP API."""
        status, text = ask(f"{self.base}/api/v1/{path}", parameters, form=True)
        answer = json.loads(text)
        if status != 200 or answer["status"] != "success" or answer.get("warnings"):
            raise AssertionError(f"{path} {parameters}: {text}")
        return answer["data"]

    def get(self, path):
        return json.loads(ask(f"{self.base}/api/v1/{path}")[1])["data"]

    def sees(self, moment):
        """Waits until the state at that moment has been scraped and evaluated by the rules."""
        scraped = f"min(timestamp(up)) > {moment} and min(timestamp(ALERTS)) > {moment}"
        until("another scrape and evaluation", lambda: self.call("query", query=scraped)["result"])

    def targets_up(self):
        return [t["scrapeUrl"] for t in self.get("targets")["activeTargets"] if t["health"] == "up"]


class World:
    def __init__(self, stack, binary, prometheus):
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-prometheus-")))
        redis_port = free_port()
        log = stack.enter_context(open(folder / "redis.log", "w+"))
        command = ["redis-server", "--port", str(redis_port), "--save", "", "--dir", str(folder)]
        running(stack, command, log)
        self.redis = redis.Redis(port=redis_port)
        self.results = redis.Redis(port=redis_port, db=1)
        until("Redis answers", self.redis.ping)

        api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reply)
        api.daemon_threads = True
        threading.Thread(target=api.serve_forever, daemon=True).start()
        stack.callback(api.shutdown)

        api_port = api.server_address[1]
        self.memory = Gateway(stack, folder, "memory", binary, api_port, None)
        self.shared = Gateway(stack, folder, "shared", binary, api_port, redis_port)
        self.gateways = [self.memory, self.shared]
        # Some metrics are there only with TLS.
        scraped = [*self.gateways, Gateway(stack, folder, "tls", binary, api_port, None, TLS)]
        for gateway in scraped:
            until(f"{gateway.config.name} is ready", gateway.ready)
        _, text = ask(f"http://{self.shared.instance}/metrics")
        self.names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        self.prometheus = Prometheus(stack, folder, prometheus, [g.instance for g in scraped])
        until("all are scraped", lambda: len(self.prometheus.targets_up()) == len(scraped))

    @contextlib.contextmanager
    def redis_paused(self):
        """Pauses writes in Redis, which still answers PING."""
        self.redis.execute_command("CLIENT", "PAUSE", DEADLINE * 2000, "WRITE")
        try:
            yield
        finally:
            self.redis.execute_command("CLIENT", "UNPAUSE")
