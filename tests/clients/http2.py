"""HTTP/2 over TLS and WebSockets on its streams (RFC 8441) with other implementations: http2.py BINARY [CHROMIUM]

curl over TLS and without it, and Chromium, whose page has several sockets on the one connection that it was loaded over.
"""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import browser as browsers
import demo

KEYS = pathlib.Path(__file__).parent.parent / "keys" / "server_tls"
SOCKETS = 8
API_KEY = "k"
CONFIG = """
[server]
listen = "127.0.0.1:{public}"
http2 = true
{tls}
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
path = "/members/"
channel = "members"
upstream = ""
auth = ["cookie"]
reject = "close"
[jwt]
keys = [{{ alg = "HS256", secret = "0123456789abcdef0123456789abcdef" }}]
cookie = "session"
[[route]]
path = "/page/"
reply = '"a page of the gateway"'
"""
TLS = f"""
[server.tls]
certificate = "{KEYS}/localhost.pem"
key = "{KEYS}/localhost.key"
"""


@contextlib.contextmanager
def gateway(binary, tls):
    public, admin = demo.free_port(), demo.free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "gateway.toml")
        path.write_text(CONFIG.format(public=public, admin=admin, key=API_KEY, tls=tls))
        running = subprocess.Popen([binary, "serve", "--config", path])
        try:
            found = demo.Demo(public, admin)
            demo.wait_until_ready(found, running)
            yield found, public, admin
        finally:
            running.terminate()
            running.wait()


def metric(found, series):
    """The value of a series; for a name without labels the sum of its series."""
    labels = "" if "{" in series else r"(?:\{.*\})?"
    lines = re.findall(rf"^{re.escape(series)}{labels} (\d+)$", found.metrics(), re.MULTILINE)
    return sum(map(int, lines))


def wait_for_metric(found, series, expected):
    deadline = time.monotonic() + demo.DEADLINE
    while (value := metric(found, series)) != expected:
        assert time.monotonic() < deadline, f"{series} is {value}, not {expected}"
        time.sleep(0.05)


def publish(admin, channel, data):
    body = json.dumps({"channel": channel, "data": data}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/v1/publish", body, {"X-API-Key": API_KEY})
    urllib.request.urlopen(request, timeout=demo.DEADLINE).close()


def curl(binary):
    def versions(url, *arguments):
        command = ["curl", "--silent", "--show-error", "--max-time", str(demo.DEADLINE), "--cacert"]
        command += [str(KEYS / "ca.pem"), "--write-out", " %{http_version} %{response_code}", *arguments, url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    page = '"a page of the gateway"'
    with gateway(binary, TLS) as (_, public, _):
        url = f"https://localhost:{public}/page/"
        assert versions(url, "--http2") == f"{page} 2 200"
        assert versions(url, "--http2", "--tls-max", "1.2") == f"{page} 2 200"
        assert versions(url, "--http1.1") == f"{page} 1.1 200"
        assert versions(url, "--no-alpn") == f"{page} 1.1 200"
        # Several requests on one connection.
        assert versions(url, "--http2", "--next", "--silent", "--cacert", str(KEYS / "ca.pem"), url).count(page) == 2
        posted = versions(url, "--http2", "--data", "x" * 1000)
        assert posted.endswith(" 2 405"), posted
        missing = versions(f"https://localhost:{public}/ws/1/", "--http2")
        assert missing.endswith(" 2 426"), missing
    with gateway(binary, "") as (_, public, _):
        url = f"http://127.0.0.1:{public}/page/"
        assert versions(url, "--http2-prior-knowledge") == f"{page} 2 200"
        # An upgrade to h2c is not taken (RFC 9113 section 3.1).
        assert versions(url, "--http2") == f"{page} 1.1 200"


# The sockets of a page, what each was told, and their ends.
SCRIPT = """(() => {
    window.opened = [];
    const open = (path) => {
        const seen = { path, extensions: null, texts: [], code: null };
        const socket = new WebSocket(`wss://${location.host}${path}`);
        socket.onmessage = (event) => {
            const frame = JSON.parse(event.data);
            if (frame.event === "connected") { seen.extensions = socket.extensions; return; }
            if (frame.event === "pong") { seen.texts.push("pong"); return; }
            seen.texts.push(frame.text);
        };
        socket.onclose = (event) => { seen.code = event.code; };
        seen.socket = socket;
        window.opened.push(seen);
    };
    for (let number = 0; number < COUNT; number++) open(`/ws/${number}/`);
    open("/members/");
    window.seen = () => window.opened.map(({ socket, ...seen }) => seen);
})()"""


def public_key_hash():
    """What Chromium is given to trust the certificate."""
    key = subprocess.run(
        ["openssl", "x509", "-in", str(KEYS / "localhost.pem"), "-noout", "-pubkey"], capture_output=True, check=True
    ).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=key, capture_output=True, check=True)
    return base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()


def chromium(binary, browser):
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    trust = f"--ignore-certificate-errors-spki-list={public_key_hash()}"
    with temporary as profile, gateway(binary, TLS) as (found, public, admin):
        running = subprocess.Popen(
            [browser, *browsers.FLAGS, trust, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = browsers.open_page(browsers.devtools(profile, running))
            page.call("Page.navigate", url=f"https://localhost:{public}/page/")
            page.wait_for("document.body?.innerText.includes('a page of the gateway')")
            page.evaluate(SCRIPT.replace("COUNT", str(SOCKETS)))
            page.wait_for(f"window.seen().filter((seen) => seen.extensions !== null).length === {SOCKETS}")
            page.wait_for(f"window.seen()[{SOCKETS}].code !== null")
            # Each socket is a stream of the connection that has also carried the page. There may be another one, since
            # Chromium sends requests without credentials, such as that for an icon, on a connection of their own.
            assert metric(found, 'tidegate_http2_streams_total{kind="connect"}') == SOCKETS + 1
            assert 1 <= metric(found, "tidegate_http2_connections") <= 2
            wait_for_metric(found, "tidegate_connections", SOCKETS)
            page.evaluate("""window.opened.forEach(({ socket }) => {
                if (socket.readyState === 1) socket.send(JSON.stringify({ type: "ping", padding: "ping ".repeat(500) }));
            })""")
            page.wait_for(f"window.seen().filter((seen) => seen.texts.includes('pong')).length === {SOCKETS}")
            compressed = 'tidegate_compression_frames_total{direction="in",outcome="done"}'
            assert metric(found, compressed) == SOCKETS, "Chromium compresses its messages"
            texts = [f"news of {number}. " * 200 for number in range(SOCKETS)]
            for number, text in enumerate(texts):
                publish(admin, f"chat_{number}", {"event": "news", "text": text})
            page.wait_for(f"window.seen().filter((seen) => seen.texts.length === 2).length === {SOCKETS}")
            seen = page.evaluate("window.seen()")
            for number, text in enumerate(texts):
                assert seen[number]["texts"] == ["pong", text], seen[number]
                assert seen[number]["extensions"].startswith("permessage-deflate"), seen[number]
            assert seen[SOCKETS]["code"] == 4001, seen[SOCKETS]
            # One socket ends, and the others stay.
            page.evaluate("window.opened[0].socket.close(1000)")
            page.wait_for("window.seen()[0].code === 1000")
            publish(admin, "chat_1", {"event": "news", "text": "still here"})
            page.wait_for("window.seen()[1].texts.includes('still here')")
            page.socket.close()
        finally:
            running.terminate()
            running.wait()


def main():
    binary = os.path.abspath(sys.argv[1])
    if shutil.which("curl"):
        curl(binary)
        print("ok: curl")
    else:
        print("SKIPPED: curl is not installed, so that it was NOT tested")
    if len(sys.argv) > 2:
        chromium(binary, sys.argv[2])
        print("ok: Chromium")
    else:
        print("SKIPPED: Chromium is not installed, so that it was NOT tested")


if __name__ == "__main__":
    main()
