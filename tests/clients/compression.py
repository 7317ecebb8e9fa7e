"""permessage-deflate with other implementations: compression.py BINARY [CHROMIUM]

Python's `websockets`, Node's own WebSocket where Node has one, and Chromium, each with what it offers by itself, beside a
client without compression: all get the same publications, and send messages that they compress.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.sync.client import connect

import browser as browsers
import demo

KEY = "k"
CONFIG = """
[server]
listen = "127.0.0.1:{public}"
[admin]
listen = "127.0.0.1:{admin}"
api_keys = ["{key}"]
[log]
level = "warn"
[origins]
allow = ["self"]
[[route]]
path = "/ws/{{name}}/"
channel = "chat_{{name}}"
upstream = ""
auth = ["anonymous"]
compression = "deflate"
[[route]]
path = "/page/"
reply = '"a page of the gateway"'
"""
# What each client sends, so long that it is worth compressing, and what is published.
PING = json.dumps({"type": "ping", "padding": "a ping of some length " * 100})
NEWS = [{"event": "news", "text": f"line {number} of the news. " * 100} for number in range(3)]


@contextlib.contextmanager
def gateway(binary):
    public, admin = demo.free_port(), demo.free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "gateway.toml")
        path.write_text(CONFIG.format(public=public, admin=admin, key=KEY))
        running = subprocess.Popen([binary, "serve", "--config", path])
        try:
            found = demo.Demo(public, admin)
            demo.wait_until_ready(found, running)
            yield found, public, admin
        finally:
            running.kill()
            running.wait()


def publish(admin, channel):
    for data in NEWS:
        body = json.dumps({"channel": channel, "data": data}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{admin}/v1/publish", body, {"X-API-Key": KEY})
        urllib.request.urlopen(request, timeout=demo.DEADLINE).close()


def count(found, direction):
    line = rf'^tidegate_compression_frames_total{{direction="{direction}",outcome="done"}} (\d+)$'
    return int(re.search(line, found.metrics(), re.MULTILINE).group(1))


def texts(frames):
    return [json.loads(frame)["text"] for frame in frames]


def follow(socket):
    return texts(socket.recv(timeout=demo.DEADLINE) for _ in NEWS)


EXPECTED = [data["text"] for data in NEWS]


def python(found, admin):
    url = f"{found.socket}/ws/python/"
    extensions = [
        None,
        [ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)],
        [ClientPerMessageDeflateFactory(server_max_window_bits=8, client_max_window_bits=None)],
        [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)],
    ]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(url, compression=None))]
        for offered in extensions:
            # None is what `websockets` offers by itself.
            compression = "deflate" if offered is None else None
            sockets.append(stack.enter_context(connect(url, extensions=offered, compression=compression)))
        agreed = [socket.protocol.extensions for socket in sockets]
        assert agreed[0] == [], agreed
        assert all(isinstance(one[0], PerMessageDeflate) for one in agreed[1:]), agreed
        before = count(found, "in")
        for socket in sockets:
            assert json.loads(socket.recv(timeout=demo.DEADLINE))["event"] == "connected"
            for message in (PING, PING):
                socket.send(message)
                assert json.loads(socket.recv(timeout=demo.DEADLINE)) == {"event": "pong"}
            socket.send([PING[:100], PING[100:]])
            assert json.loads(socket.recv(timeout=demo.DEADLINE)) == {"event": "pong"}
        assert count(found, "in") == before + 3 * len(extensions)
        publish(admin, "chat_python")
        for socket in sockets:
            assert follow(socket) == EXPECTED


# Prints the extensions, then what arrives, one line each.
SCRIPT = """
const socket = new WebSocket(URL_);
const lines = [];
socket.onerror = (event) => { lines.push("error"); };
socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    if (frame.event === "connected") { lines.push(socket.extensions); socket.send(PING_); socket.send(PING_); }
    else lines.push(event.data);
};
"""


def script(url):
    return SCRIPT.replace("URL_", json.dumps(url)).replace("PING_", json.dumps(PING))


def check_lines(lines):
    assert lines[0].startswith("permessage-deflate"), lines[0]
    assert lines[1:3] == ['{"event":"pong"}'] * 2, lines[1:3]
    assert texts(lines[3:]) == EXPECTED, lines[3:]


def node(found, admin):
    """The WebSocket of Node itself, which Node 22 and later have."""
    program = script(f"{found.socket}/ws/node/") + """
    let written = 0;
    setInterval(() => {
        while (written < lines.length) console.log(lines[written++]);
        if (written >= 6 || lines.includes("error")) process.exit();
    }, 20);
    """
    with subprocess.Popen(["node", "-e", program], stdout=subprocess.PIPE, text=True) as running:
        before = count(found, "in")
        lines = [running.stdout.readline().rstrip("\n") for _ in range(3)]
        # Node may leave short or all messages as they are; what it has compressed was read.
        assert before <= count(found, "in") <= before + 2
        publish(admin, "chat_node")
        lines += running.stdout.read().splitlines()
        check_lines(lines)


def chromium(found, public, admin, binary):
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with temporary as profile:
        running = subprocess.Popen(
            [binary, *browsers.FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = browsers.open_page(browsers.devtools(profile, running))
            page.call("Page.navigate", url=f"http://127.0.0.1:{public}/page/")
            page.wait_for("document.body?.innerText.includes('a page of the gateway')")
            before = count(found, "in")
            page.evaluate(f"(() => {{ {script(found.socket + '/ws/browser/')} window.lines = lines; }})()")
            page.wait_for("window.lines.length >= 3")
            assert count(found, "in") == before + 2, "Chromium compresses its messages"
            publish(admin, "chat_browser")
            page.wait_for("window.lines.length >= 6")
            check_lines(page.evaluate("window.lines"))
            page.socket.close()
        finally:
            running.terminate()
            running.wait()


def has_websocket():
    """Whether there is a Node with a WebSocket of its own."""
    if not shutil.which("node"):
        return False
    known = subprocess.run(["node", "-p", "typeof WebSocket"], capture_output=True, text=True, check=False)
    return known.stdout.strip() == "function"


def main():
    binary = os.path.abspath(sys.argv[1])
    with gateway(binary) as (found, public, admin):
        python(found, admin)
        print("ok: Python's websockets")
        if has_websocket():
            node(found, admin)
            print("ok: Node's WebSocket")
        else:
            print("SKIPPED: this Node has no WebSocket of its own, so that it was NOT tested")
        if len(sys.argv) > 2:
            chromium(found, public, admin, sys.argv[2])
            print("ok: Chromium")
        else:
            print("SKIPPED: Chromium is not installed, so that it was NOT tested")


if __name__ == "__main__":
    main()
