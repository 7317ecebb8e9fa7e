"""Starts `tidegate demo` on free ports for a test, and sends the HTTP requests that a browser would."""

import contextlib
import http.cookies
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
from free_port import free_port  # noqa: E402

DEADLINE = 15
TOKEN_PATH = "/api/v1/auth/ws-connection-token/"


class Demo:
    def __init__(self, public, admin):
        self.port = public
        self.origin = f"http://127.0.0.1:{public}"
        self.socket = f"ws://127.0.0.1:{public}"
        self.admin = f"http://127.0.0.1:{admin}"

    def connection_token(self):
        """Loads the page for its cookies, and requests a token with them."""
        with urllib.request.urlopen(f"{self.origin}/", timeout=DEADLINE) as page:
            jar = http.cookies.SimpleCookie()
            for header in page.headers.get_all("Set-Cookie"):
                jar.load(header)
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())
        request = urllib.request.Request(
            f"{self.origin}{TOKEN_PATH}",
            data=b"{}",
            headers={
                "Content-Type": "application/json",
                "Cookie": cookies,
                "Origin": self.origin,
                "X-CSRFToken": jar["csrftoken"].value,
            },
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            assert answer.headers["Cache-Control"] == "no-store", answer.headers
            issued = json.load(answer)
        assert issued["expires_in"] > 0, issued
        return issued["connection_token"]

    def metrics(self):
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=DEADLINE) as answer:
            return answer.read().decode()


def wait_until_ready(demo, process):
    deadline = time.monotonic() + DEADLINE
    while True:
        if process.poll() is not None:
            raise SystemExit(f"tidegate demo ended by itself with {process.returncode}")
        try:
            with urllib.request.urlopen(f"{demo.admin}/readyz", timeout=DEADLINE):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def running(binary):
    """Runs a demo that is ready. At the end it must exit by itself with code 0."""
    public, admin = free_port(), free_port()
    process = subprocess.Popen(
        [binary, "demo", "--listen", f"127.0.0.1:{public}", "--admin", f"127.0.0.1:{admin}"],
        stdout=subprocess.DEVNULL,
    )
    try:
        demo = Demo(public, admin)
        wait_until_ready(demo, process)
        yield demo
        process.terminate()
        code = process.wait(DEADLINE)
        assert code == 0, f"tidegate demo stopped with exit code {code}"
    finally:
        process.kill()
        process.wait()
