"""The demo's page in headless Chromium, by its debugging protocol: browser.py BINARY CHROMIUM PNG

Types a message, waits for the whole reply in the page, takes a picture, and fails on anything that
the page wrote to the console as an error.
"""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

from websockets.sync.client import connect

import demo as demos

DEADLINE = 30
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
]


class Page:
    """One tab. Commands are answered in order; events that come in between are looked at."""

    def __init__(self, url):
        self.socket = connect(url, max_size=None)
        self.last_id = 0
        self.errors = []

    def call(self, method, **params):
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=DEADLINE))
            if message.get("id") == self.last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.note(message)

    def note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"])

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression):
        deadline = time.monotonic() + DEADLINE
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise SystemExit(f"waited in vain for {expression}; errors: {self.errors}\n{shown}")
            time.sleep(0.05)
        return value

    def picture(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


def devtools(profile, browser):
    """The address that Chromium writes to its profile once it listens."""
    port_file = pathlib.Path(profile) / "DevToolsActivePort"
    deadline = time.monotonic() + DEADLINE
    while not (port_file.exists() and "\n" in port_file.read_text()):
        if browser.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("Chromium did not start")
        time.sleep(0.05)
    return f"127.0.0.1:{port_file.read_text().split()[0]}"


def open_page(address):
    request = urllib.request.Request(f"http://{address}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        page = Page(json.load(answer)["webSocketDebuggerUrl"])
    for domain in ("Page", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    return page


def chat(page, demo):
    page.call("Page.navigate", url=f"{demo.origin}/#browser")
    page.wait_for("document.querySelector('#status')?.dataset.state === 'open'")
    page.evaluate("document.querySelector('#message').focus()")
    page.call("Input.insertText", text="Hello from Chromium")
    page.evaluate("document.querySelector('#send').click()")
    reply = page.wait_for(
        "document.querySelector('.reply[data-state=complete] .text')?.textContent"
    )
    assert reply.startswith("You said “Hello from Chromium”, which is 3 words."), reply
    assert reply.endswith("receives the same frame."), reply
    frames = page.evaluate("document.querySelectorAll('#wire .down').length")
    assert frames > 10, frames


def main():
    binary, chromium, picture = sys.argv[1:]
    # Chromium's children may still write into the profile when their parent has ended.
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with demos.running(binary) as demo, temporary as profile:
        browser = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = open_page(devtools(profile, browser))
            chat(page, demo)
            page.picture(pathlib.Path(picture))
            assert not page.errors, page.errors
            page.socket.close()
        finally:
            browser.terminate()
            browser.wait()
    print(f"ok: a reply streamed in the page; picture in {picture}")


main()
