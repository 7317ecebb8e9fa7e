"""The gateway: its own config for each job, with limits that are checked but never reached; and once more with
everything on that a connection, a message and a publication can carry."""

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
{sections}
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
{options}
"""
LIMITS = """
[route.limits]
messages_per_connection = "1000000/1s"
connects_per_user = "1000000/1s"
connections_per_user = 0
"""
# Each client is a user of its own. A worker that takes messages from a list never replies here, so the replies of a
# user that run at the same time are counted, but not limited to a few.
ALL_SECTIONS = """
[jwt]
keys = [{alg = "HS256", secret = "only-for-benchmarks-0123456789abcdef"}]
session_version = {claim = "session_version", key = "app:1:session:version:{user_id}"}

[origins]
allow = ["https://app.example.com"]
"""
ALL_OPTIONS = """
presence = "on"
timestamps = true
max_session = "8h"

[route.limits]
messages_per_connection = "1000000/1s"
messages_per_user = "1000000/1s"
connects_per_user = "30/1m"
connections_per_user = 20
generations_per_user = 1000000
{usage}

[route.history]
compact = "chunks"

[route.generations]
reply_idle_timeout = "1m"
{turns}
"""
# These need a reply that ends, and that comes by HTTP.
USAGE = 'usage_per_user = "1000000000/1d"'
TURNS = 'concurrent = "queue"'
# Enough for any scenario; each opens one connection.
TOKENS = 21_000
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

    # Sections that the config has beside those that a job needs.
    sections = ""

    def version(self):
        return "this commit"

    def has_redis_engine(self, job):
        return job in ("redis", "redis-batch", "token")

    def has_tokens(self, job):
        return job == "token"

    def upstream(self, job):
        return UPSTREAM_OF.get(job, "")

    def options(self, job):
        return LIMITS

    def start(self, world, processes, job, size):
        backend = free_port()
        nodes = [(free_port(), free_port()) for _ in range(size.get("nodes", 1))]
        redis_engine = self.has_redis_engine(job) or len(nodes) > 1
        for number, (port, admin) in enumerate(nodes):
            names = {
                "port": port,
                "admin": admin,
                "redis": world.redis_port,
                "backend": backend,
                "list": LIST,
                "threads": size.get("threads", 1),
                "upstream": self.upstream(job),
                "auth": "connection_token" if self.has_tokens(job) else "anonymous",
                "protocol": "raw" if job == "raw" else "json",
                "sections": self.sections,
                "options": self.options(job),
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
        if self.has_tokens(job):
            peer["path"] += "?connection_token={credential}"
            peer["credentials"] = str(self.tokens(world, processes.directory))
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

    def tokens(self, world, directory):
        """Stores tokens as a backend would, and returns a file with them."""
        tokens = [secrets.token_urlsafe(32) for _ in range(TOKENS)]
        record = '{"user_id": %d, "username": "ana"}'
        commands = [
            ("SET", f"ws_conn_token:{token}", record % number, "EX", 600) for number, token in enumerate(tokens)
        ]
        world.redis(*commands)
        file = directory / "tokens"
        file.write_text("\n".join(tokens))
        return file


class EverythingOn(Tidegate):
    name = "tidegate-all"
    title = "Tidegate, everything on"
    slow = True
    carries = (
        "the same on the Redis engine, with presence, single-use tokens and a user for each client, all limits per user, "
        "timestamps, sessions that end, an origin allowlist, queued replies, and a timeout for silent workers"
    )
    unsupported = {"raw": "a raw route has none of these options"}
    sections = ALL_SECTIONS

    def has_redis_engine(self, job):
        return True

    def has_tokens(self, job):
        return True

    def upstream(self, job):
        # The limits of messages and replies need one.
        return super().upstream(job) or "http"

    def options(self, job):
        usage, turns = (USAGE, TURNS) if job == "stream" else ("", "")
        return ALL_OPTIONS.format(usage=usage, turns=turns)


def commit():
    try:
        return run(["git", "rev-parse", "--short", "HEAD"]).strip()
    except Exception:  # Not a repository: the page says so.
        return "unknown"
