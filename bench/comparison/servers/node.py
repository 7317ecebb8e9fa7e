"""Node with ws and ioredis, from npm: the application of `comparison/apps/server.mjs`."""

import json
import shutil

from .. import install
from ..machine import free_port
from . import ACCEPTED, CLIENT_MESSAGE, LIST, Server, streamed, upstream
from .uws import APPS


class Node(Server):
    name = "node"
    title = "Node `ws` + ioredis"
    carries = "nothing but the job (`comparison/apps/server.mjs`)"
    unsupported = {
        "redis-batch": "it has one node",
        "raw": "it has no WebSocket upstreams",
        "token": "it has no tokens",
    }

    def install(self):
        install.node()

    def version(self):
        versions = []
        for name in ("ws", "ioredis"):
            versions.append(json.loads((install.NODE / "node_modules" / name / "package.json").read_text())["version"])
        return "ws {}, ioredis {}, ".format(*versions) + "Node " + install.run(["node", "--version"]).strip()

    def start(self, world, processes, job, size):
        port, backend = free_port(), free_port()
        environment = {
            "MODULES": str(install.NODE),
            "PORT": str(port),
            "REDIS_PORT": str(world.redis_port) if job in ("redis", "list") else "",
            "UPSTREAM": f"http://127.0.0.1:{backend}/messages",
            "LIST": LIST if job == "list" else "",
        }
        processes.start([shutil.which("node"), APPS / "server.mjs"], [port], env=environment)
        peer = {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/ws/{channel}",
            "http": {
                "address": f"127.0.0.1:{port}",
                "path": "/publish/{channel}",
                "body": "{data}",
                "batch": ["", "{data}", "\n", ""],
            },
            "redis": {"address": world.redis_address, "channel": "{channel}", "body": "{data}"},
            "message": {"text": CLIENT_MESSAGE, "frames": 3 if job == "stream" else 1},
        }
        if job in ("http", "stream"):
            peer["upstream"] = upstream(backend, ("{", streamed() if job == "stream" else ACCEPTED, True))
        return peer
