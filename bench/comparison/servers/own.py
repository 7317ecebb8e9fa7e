"""Servers of this repository: the minimal one, and those that measure the bounds of the machine. And proxies."""

import re
import shutil
import subprocess

from ..machine import Failed, free_port
from . import ACCEPTED, CLIENT_MESSAGE, LIST, Server, streamed, upstream

EACH = '{"channel":"chat_{channel}","data":{data}}'
ONLY_BOUND = "it only measures a bound"


class Minimal(Server):
    name = "minimal"
    title = "minimal"
    carries = "hyper, fastwebsockets and the redis crate in the obvious design; nothing else (`bench/src/bin/baseline.rs`)"
    unsupported = {
        "redis-batch": "it has one node",
        "raw": "it has no WebSocket upstreams",
        "token": "it has no tokens",
    }

    def start(self, world, processes, job, size):
        port, admin, backend = free_port(), free_port(), free_port()
        command = [world.binaries / "baseline", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
        if job in ("redis", "list"):
            command += ["--redis", f"redis://{world.redis_address}"]
        if job == "list":
            command += ["--list", LIST]
        processes.start([*command, "--upstream", f"http://127.0.0.1:{backend}/messages"], [port, admin])
        peer = {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/ws/chat/{channel}/",
            "greeting": 1,
            "http": {
                "address": f"127.0.0.1:{admin}",
                "path": "/v1/publish",
                "body": EACH,
                "batch": ['{"publications":[', EACH, ",", "]}"],
            },
            "redis": {"address": world.redis_address, "channel": "chat_{channel}", "body": "{data}"},
            "message": {"text": CLIENT_MESSAGE, "frames": 3 if job == "stream" else 1},
        }
        if job in ("http", "stream"):
            peer["upstream"] = upstream(backend, ("{", streamed() if job == "stream" else ACCEPTED, True))
        return peer


class Bound(Server):
    """Writes frames and does nothing else."""

    partial = True

    def __init__(self, joined):
        self.joined = joined
        self.name = f"writev-{joined}"
        self.title = f"bound: {joined} in a `writev`" if joined > 1 else "bound: single `write`s"
        self.carries = "a loop that writes frames to sockets (`bench/src/bin/bound.rs`)"

    def reason(self, job):
        return None if job == "bound" else ONLY_BOUND

    def start(self, world, processes, job, size):
        port = free_port()
        command = [world.binaries / "bound", "--listen", f"127.0.0.1:{port}", "--joined", self.joined]
        command += ["--connections", size["connections"], "--bytes", size["bytes"]]
        processes.start(command, [port])
        return {"servers": [f"127.0.0.1:{port}"], "path": "/", "greeting": 0}


class RawRedis(Server):
    name = "raw-redis"
    partial = True
    title = "bound: Redis itself"
    carries = "clients that subscribe to Redis themselves, without a WebSocket"

    def reason(self, job):
        return None if job == "redis" else ONLY_BOUND

    def start(self, world, processes, job, size):
        port = free_port()
        flags = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--maxclients", "12000", "--protected-mode", "no"]
        processes.start([shutil.which("redis-server"), "--port", port, *flags], [port])
        address = f"127.0.0.1:{port}"
        return {
            "servers": [address],
            "framing": "bare",
            "hello": ["SUBSCRIBE chat_{channel}\r\n"],
            "redis": {"address": address, "channel": "chat_{channel}", "body": "{data}"},
        }


NGINX = """
worker_processes 1;
daemon off;
error_log stderr warn;
pid {directory}/nginx.pid;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 9000
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend clients
    bind 127.0.0.1:{port}
    default_backend echo
backend echo
    server echo 127.0.0.1:{backend}
"""


class Proxy(Server):
    """nginx or HAProxy between clients and a WebSocket upstream."""

    partial = True

    def __init__(self, name):
        self.name = name
        self.title = {"nginx": "nginx", "haproxy": "HAProxy"}[name]
        self.carries = "bytes in both directions, without reading frames"

    def install(self):
        if not shutil.which(self.name):
            raise Failed("it is not installed")

    def version(self):
        done = subprocess.run([self.name, "-v"], capture_output=True, text=True)
        return re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)[0]

    def reason(self, job):
        return None if job == "raw" else "it is a proxy"

    def start(self, world, processes, job, size):
        port, backend = free_port(), free_port()
        processes.start([world.binaries / "echo", "--listen", f"127.0.0.1:{backend}"], [backend], "load", False)
        template = NGINX if self.name == "nginx" else HAPROXY
        config = processes.directory / f"{self.name}.conf"
        config.write_text(template.format(port=port, backend=backend, directory=processes.directory))
        if self.name == "nginx":
            command = ["nginx", "-e", "stderr", "-p", processes.directory, "-c", config]
        else:
            command = ["haproxy", "-db", "-f", config]
        processes.start(command, [port], family=2 if self.name == "nginx" else 1)
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/",
            "message": {"text": "*" * 64, "frames": 1},
        }
