"""Runs a gateway with a config of docs/pass-through.md in front of an application."""

import base64
import hashlib
import hmac
import json
import re
import time
import urllib.request
from pathlib import Path

from gateway_process import GatewayProcess

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pass-through.md"
SECRET = "0123456789abcdef0123456789abcdef"


def recipes():
    """The names of all configs that the page shows."""
    return sorted(re.findall(r"^```toml file=(\w+)\.toml$", PAGE.read_text(), re.MULTILINE))


def recipe(name, port):
    """The config that the page shows for an application, which listens on `port`."""
    block = re.search(rf"^```toml file={name}\.toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block, f"{PAGE} has no block of the file {name}.toml"
    text, count = re.subn(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", block[1])
    assert count, f"{name}.toml names no address"
    return text


def session_token(user="ana"):
    """A JWT as the API would issue it to a user who has signed in."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": user, "exp": int(time.time()) + 3600}]
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{text}.{encoded(hmac.digest(SECRET.encode(), text.encode(), 'sha256'))}"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Gateway(GatewayProcess):
    """A gateway that is ready. When the context ends it must stop by itself, and must have complained of nothing."""

    def __init__(self, binary, name, port, stack):
        super().__init__(
            binary, recipe(name, port), stack,
            JWT_SECRET=SECRET,
            TIDEGATE__SERVER__LISTEN="127.0.0.1:0", TIDEGATE__ADMIN__LISTEN="127.0.0.1:0",
            TIDEGATE__SERVER__MAX_CONNECTIONS="1000", TIDEGATE__SHUTDOWN__DRAIN="100ms", TIDEGATE__LOG__FORMAT="json",
        )
        self.url = f"http://{self.public}"

    def handshakes(self, outcome):
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
        line = rf'^tidegate_handshakes_total{{.*outcome="{outcome}".*}} (\d+)$'
        return sum(int(count) for count in re.findall(line, metrics, re.MULTILINE))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        code = self.process.stop()
        if kind is None:
            assert code == 0, f"the gateway stopped with exit code {code}"
            complaints = [event for event in self.events() if event.get("level") in ("WARN", "ERROR")]
            assert not complaints, complaints
