"""AnyCable-Go from the Go module proxy: public streams, which need no Rails application."""

import re

from ..install import GO, go, run
from ..machine import free_port
from . import Server

COMMAND = '{"command":"subscribe","identifier":"{\\"channel\\":\\"$pubsub\\",\\"stream_name\\":\\"{channel}\\"}"}'
EACH = '{"stream":"{channel}","data":{text}}'


class AnyCable(Server):
    name = "anycable"
    title = "AnyCable-Go"
    carries = "no history (its default); subscription commands"
    unsupported = {
        "redis-batch": "its HTTP calls publish on one node",
        "list": "it has no relay to Redis",
        "http": "a client's message goes to a Rails application by RPC",
        "stream": "a client's message goes to a Rails application by RPC",
        "raw": "it has no WebSocket upstreams",
        "token": "its tokens are JWTs, which Redis is not asked about",
    }

    def install(self):
        go("github.com/anycable/anycable-go/cmd/anycable-go", "anycable-go")

    def version(self):
        return re.search(r"\d+\.\d+\.\d+", run([str(GO / "anycable-go"), "--version"]))[0]

    def start(self, world, processes, job, size):
        port, broadcast = free_port(), free_port()
        command = [GO / "anycable-go", "--host", "127.0.0.1", "--port", port, "--public", "--ping_interval", "600"]
        command += ["--log_level", "error", "--http_broadcast_port", broadcast]
        command += ["--broadcast_adapter", "redis" if job == "redis" else "http"]
        command += ["--redis_url", f"redis://{world.redis_address}/0"]
        ports = [port] if job == "redis" else [port, broadcast]
        processes.start(command, ports, env={"GOMAXPROCS": "1"})
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/cable",
            "headers": [["Sec-WebSocket-Protocol", "actioncable-v1-json"]],
            "hello": [COMMAND],
            "greeting": 2,
            "http": {
                "address": f"127.0.0.1:{broadcast}",
                "path": "/_broadcast",
                "body": EACH,
                "batch": ["[", EACH, ",", "]"],
            },
            "redis": {"address": world.redis_address, "channel": "__anycable__", "body": EACH},
        }
