"""Django Channels with the channel layer in Redis, behind Daphne or Uvicorn: `comparison/apps/channels_app.py`."""

from .. import install
from ..machine import free_port
from . import CLIENT_MESSAGE, Server
from .uws import APPS


class Channels(Server):
    package = ""
    slow = True
    carries = "a channel layer in Redis, so any process can send to a group (`comparison/apps/channels_app.py`)"
    unsupported = {
        "batch": "its layer sends one message a call",
        "redis-batch": "its layer sends one message a call",
        "redis": "its layer's format in Redis is its own; what is published by HTTP goes through Redis",
        "http": "it has no HTTP client of its own",
        "stream": "it has no HTTP client of its own",
        "raw": "it has no WebSocket upstreams",
        "token": "it has no tokens of its own",
    }

    def install(self):
        install.python()

    def version(self):
        names = (self.package, "channels", "channels_redis")
        return ", ".join(f"{name} {install.python_version(name)}" for name in names)

    def command(self, port):
        raise NotImplementedError

    def start(self, world, processes, job, size):
        port = free_port()
        environment = {"REDIS_PORT": str(world.redis_port), "PYTHONPATH": str(APPS)}
        processes.start(self.command(port), [port], env=environment)
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/ws/{channel}",
            "http": {
                "address": f"127.0.0.1:{port}",
                "path": "/publish/{channel}",
                "body": "{data}",
                "batch": ["", "{data}", "\n", ""],
            },
            "message": {"text": CLIENT_MESSAGE, "frames": 1},
        }


class Daphne(Channels):
    name = "daphne"
    title = "Channels, Daphne"
    package = "daphne"

    def command(self, port):
        arguments = ["-b", "127.0.0.1", "-p", port, "--ping-interval", "600", "--access-log", "/dev/null"]
        return [install.VENV / "bin/daphne", *arguments, "-v", "0", "channels_app:application"]


class Uvicorn(Channels):
    name = "uvicorn"
    title = "Channels, Uvicorn"
    package = "uvicorn"

    def command(self, port):
        arguments = ["--host", "127.0.0.1", "--port", port, "--log-level", "warning", "--ws-ping-interval", "600", "--timeout-keep-alive", "600"]
        return [install.VENV / "bin/uvicorn", *arguments, "--ws-per-message-deflate", "false", "channels_app:application"]
