"""uWebSockets, by socketify from PyPI: the application of `comparison/apps/uws.py`."""

from pathlib import Path

from .. import install
from ..machine import free_port
from . import Server

APPS = Path(__file__).resolve().parents[1] / "apps"
PYTHON = "its clients of Redis and HTTP would be Python's, and would be measured in place of it"


class Uws(Server):
    name = "uws"
    title = "uWebSockets (socketify)"
    carries = "nothing but the job (`comparison/apps/uws.py`)"
    unsupported = {
        "redis-batch": "it has one node",
        "redis": PYTHON,
        "list": PYTHON,
        "http": PYTHON,
        "stream": PYTHON,
        "raw": "it has no WebSocket upstreams",
        "token": "it has no tokens",
    }

    def install(self):
        install.python()
        install.run([str(install.VENV / "bin/python"), "-c", "import socketify"])

    def version(self):
        return "socketify " + install.python_version("socketify")

    def start(self, world, processes, job, size):
        port = free_port()
        command = [install.VENV / "bin/python", APPS / "uws.py"]
        processes.start(command, [port], env={"PORT": str(port)})
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/ws/{channel}",
            "http": {
                "address": f"127.0.0.1:{port}",
                "path": "/publish/{channel}",
                "body": "{data}",
                "batch": ["", "{data}", "\n", ""],
            },
        }
