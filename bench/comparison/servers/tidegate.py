"""The gateway: its own config for each job, with limits that are checked but never reached."""

import secrets

from ..install import run
from ..machine import free_port
from . import ACCEPTED, CLIENT_MESSAGE, LIST, Server, streamed, upstream

SERVER = """
[server]
listen = "127.0.0.1:{port}"
threads = {threads}
max_connections = 200000
max_connections_per_ip = 0

[limits]
connects_per_ip = "1000000/1s"
channels_per_ip = "1000000/1s"

[admin]
listen = "127.0.0.1:{admin}"
api_keys = ["bench"]

[shutdown]
drain = "100ms"
grace = "1s"

[log]
level = "warn"
"""
REDIS_ENGINE = """
[engine]
kind = "redis"
[engine.redis]
url = "redis://127.0.0.1:{redis}/0"
"""
ROUTE = """
[[route]]
path = "/ws/chat/{{conversation_id}}/"
channel = "chat_{{conversation_id}}"
upstream = "{upstream}"
auth = ["{auth}"]
protocol = "{protocol}"
idle_ping = "10m"
[route.limits]
messages_per_connection = "1000000/1s"
connects_per_user = "1000000/1s"
connections_per_user = 0
"""
# All clients have one address, so one user may have all that is in flight.
UPSTREAMS = {
    "http": """
[upstream.http]
kind = "http"
url = "http://127.0.0.1:{backend}/messages"
max_in_flight = 4096
max_in_flight_per_user = 4096
""",
    "list": """
[upstream.list]
kind = "redis-list"
redis_url = "redis://127.0.0.1:{redis}/0"
key = "{list}"
max_len_per_user = 100000
max_in_flight = 4096
max_in_flight_per_user = 4096
""",
    "raw": """
[upstream.raw]
kind = "websocket"
url = "ws://127.0.0.1:{backend}/"
max_in_flight_per_user = 10000
""",
    "": "",
}
UPSTREAM_OF = {"list": "list", "http": "http", "stream": "http", "raw": "raw"}
EACH = '{"channel":"chat_{channel}","data":{data}}'


class Tidegate(Server):
    name = "tidegate"
    title = "Tidegate"
    carries = (
        "all of its features, by default: a history of 1,000 publications and resume, limits, metrics; replies are "
        "monitored and end once. Redis only where a job needs it (for tokens, and what goes through Redis)"
    )

    def version(self):
        return "this commit"

    def start(self, world, processes, job, size):
        backend = free_port()
        nodes = [(free_port(), free_port()) for _ in range(size.get("nodes", 1))]
        redis_engine = job in ("redis", "redis-batch", "token") or len(nodes) > 1
        for number, (port, admin) in enumerate(nodes):
            names = {
                "port": port,
                "admin": admin,
                "redis": world.redis_port,
                "backend": backend,
                "list": LIST,
                "threads": size.get("threads", 1),
                "upstream": UPSTREAM_OF.get(job, ""),
                "auth": "connection_token" if job == "token" else "anonymous",
                "protocol": "raw" if job == "raw" else "json",
            }
            parts = [SERVER, REDIS_ENGINE if redis_engine else "", ROUTE, UPSTREAMS[names["upstream"]]]
            config = processes.directory / f"gateway-{number}.toml"
            config.write_text("".join(part.format(**names) for part in parts))
            if job == "raw" and number == 0:
                echo = [world.binaries / "echo", "--listen", f"127.0.0.1:{backend}"]
                processes.start(echo, [backend], core="load", counted=False)
            command = [world.binaries / "tidegate", "serve", "--config", config]
            # More threads than one need more cores than one.
            processes.start(command, [port, admin], core="server" if size.get("threads", 1) == 1 else None)
        return self.describe(world, nodes, job, backend, size, processes)

    def describe(self, world, nodes, job, backend, size, processes):
        peer = {
            "servers": [f"127.0.0.1:{port}" for port, _ in nodes],
            "path": "/ws/chat/{channel}/",
            "greeting": 0 if job == "raw" else 1,
            "http": {
                "address": f"127.0.0.1:{nodes[0][1]}",
                "path": "/v1/publish",
                "headers": [["Authorization", "Bearer bench"]],
                "body": EACH,
                "batch": ['{"publications":[', EACH, ",", "]}"],
            },
            "redis": {"address": world.redis_address, "channel": "chat_{channel}", "body": "{data}"},
        }
        if job == "token":
            peer["path"] += "?connection_token={credential}"
            peer["credentials"] = str(self.tokens(world, size["connections"] + 1, processes.directory))
        if job in ("list", "http"):
            peer["message"] = {"text": CLIENT_MESSAGE, "frames": 1}
        if job == "http":
            peer["upstream"] = upstream(backend, ("{", ACCEPTED, True))
        if job == "stream":
            # task_queued, processing_started, and both events.
            peer["message"] = {"text": CLIENT_MESSAGE, "frames": 4}
            peer["upstream"] = upstream(backend, ("{", streamed(), True))
        if job == "raw":
            peer["message"] = {"text": "*" * 64, "frames": 1}
        return peer

    def tokens(self, world, count, directory):
        """Stores tokens as a backend would, and returns a file with them."""
        tokens = [secrets.token_urlsafe(32) for _ in range(count)]
        record = '{"user_id": %d, "username": "ana"}'
        commands = [
            ("SET", f"ws_conn_token:{token}", record % number, "EX", 600) for number, token in enumerate(tokens)
        ]
        world.redis(*commands)
        file = directory / "tokens"
        file.write_text("\n".join(tokens))
        return file


def commit():
    try:
        return run(["git", "rev-parse", "--short", "HEAD"]).strip()
    except Exception:  # Not a repository: the page says so.
        return "unknown"
