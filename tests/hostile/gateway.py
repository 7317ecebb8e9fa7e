"""A gateway process, and the levels of what it holds."""

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

from wire import API_KEY, ISSUE, ORIGIN, SECRET

# The limits are the defaults, except that honest users write more than 50 messages in an hour. What has a lifetime has a
# short one, so that the end of the soak is soon.
CONFIG = f"""
[server]
listen = "127.0.0.1:0"
threads = 2
header_timeout = "3s"
max_connections = 2000
max_connections_per_ip = 60
[admin]
listen = "127.0.0.1:0"
api_keys = ["{API_KEY}"]
[shutdown]
drain = "300ms"
grace = "1s"
[log]
format = "json"
[tokens]
issue_path = "{ISSUE}"
ttl = "5s"
[jwt]
keys = [{{ alg = "HS256", secret = "{SECRET.decode()}" }}]
[origins]
allow = ["{ORIGIN}"]
[proxy]
upstream = "UPSTREAM/"
timeout = "5s"
[[route]]
path = "/ws/chat/{{conversation}}/"
channel = "chat_{{conversation}}"
upstream = "app"
pong_timeout = "3s"
idle_ping = "5s"
[route.history]
ttl = "5s"
[route.generations]
dedup_ttl = "10s"
[route.limits]
messages_per_user = "600/1m"
[[route]]
path = "/ws/open/{{room}}/"
channel = "open_{{room}}"
auth = ["anonymous"]
upstream = "app"
pong_timeout = "3s"
idle_ping = "5s"
presence = "on"
[route.history]
ttl = "5s"
[route.generations]
dedup_ttl = "10s"
[upstream.app]
kind = "http"
url = "UPSTREAM/messages"
"""

GAUGES = ["process_open_fds", "process_threads", "process_resident_memory_bytes", "tidegate_client_sockets",
          "tidegate_connections"]


class Gateway:
    def __init__(self, binary: str, upstream: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name, "gateway.toml")
        config.write_text(CONFIG.replace("UPSTREAM", upstream))
        self.log = Path(self.folder.name, "log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary, "serve", "--config", config], stderr=log)
        event = self.wait_for_listening()
        self.public, self.admin = (self.address(event, name) for name in ("public", "admin"))

    def wait_for_listening(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if '"listening"' in line:
                    return line
            time.sleep(0.05)
        raise SystemExit(f"the gateway does not start:\n{self.log.read_text()}")

    @staticmethod
    def address(event: str, name: str) -> tuple[str, int]:
        host, port = re.search(rf'"{name}":"([0-9.]+):(\d+)"', event).groups()
        return host, int(port)

    def events(self) -> dict[str, int]:
        """The number of log lines of each event that is a warning or worse."""
        found: dict[str, int] = {}
        for line in self.log.read_text().splitlines():
            fields = json.loads(line)
            if fields.get("level") in ("WARN", "ERROR"):
                name = f"{fields['level']} {fields.get('event') or fields.get('fields', {}).get('event')}"
                found[name] = found.get(name, 0) + 1
        return found

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def read_gauges(exposition: str) -> dict[str, float]:
    """The sums of the gauges over their labels."""
    levels = dict.fromkeys(GAUGES, 0.0)
    for line in exposition.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in levels:
            levels[name] += float(line.rsplit(" ", 1)[1])
    return levels
