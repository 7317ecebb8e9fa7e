"""Tests the nginx and HAProxy files of deploy/ in front of two gateways: proxies.py BINARY

Both proxies are real, and run with the shipped files; only addresses, certificates and folders are replaced. Needs
nginx, haproxy and openssl, and the Python package websockets.
"""

import asyncio
import http.server
import itertools
import json
import os
import re
import ssl
import sys
import threading
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from parts import DEADLINE, DEPLOY, Gateway, directory, eventually, free_port, run

TOKEN_IN_QUERY = "a-credential-that-nobody-may-log"
# The number of connections that one client address may have open.
PER_ADDRESS = 3

CONFIG = """
[server]
trusted_proxies = ["127.0.0.1/32"]
max_connections_per_ip = {per_address}
[shutdown]
drain = "2s"
grace = "5s"
[origins]
allow = ["https://localhost"]
[proxy]
upstream = "http://127.0.0.1:{api}"
[[route]]
path = "/ws/chat/{{conversation_id}}/"
channel = "chat_{{conversation_id}}"
upstream = "api"
auth = ["anonymous"]
[upstream.api]
kind = "http"
url = "http://127.0.0.1:{api}/internal/chat"
"""


class Api(http.server.BaseHTTPRequestHandler):
    """The API behind the gateway: it returns the headers of a request, and answers messages with a stream."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("application/json", [json.dumps(dict(self.headers)).encode()])

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        events = [{"event": "chunk", "chunk": word} for word in job["message"].split()]
        self.answer("text/event-stream", [f"data: {json.dumps(event)}\n\n".encode() for event in events])

    def answer(self, kind, parts):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in [*parts, b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

    def log_message(self, *_):
        pass


def serve_api():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def certificate(folder):
    """Creates a certificate for localhost. Returns the files of the certificate, its key, and both together."""
    paths = folder.path / "fullchain.pem", folder.path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    name = ["-addext", "subjectAltName=DNS:localhost"]
    run(*command.split(), *name, "-out", paths[0], "-keyout", paths[1])
    both = folder.write("tidegate.pem", paths[0].read_text() + paths[1].read_text())
    for path in (paths[1], both):
        path.chmod(0o644)
    return both


def replaced(text, replacements):
    """Replaces parts of the text; each must exist, so that the test still matches the file."""
    for old, new in replacements.items():
        assert old in text, f"no {old!r} in the file"
        text = text.replace(old, new)
    return text


def start_nginx(folder, port, nodes):
    logs = folder.path / "nginx-access.log"
    site = replaced(
        (DEPLOY / "nginx" / "tidegate.conf").read_text(),
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "    listen [::]:443 ssl;\n": "",
            "chat.example.com": "localhost",
            "/etc/ssl/tidegate": str(folder.path),
            "/var/log/nginx/tidegate.log": str(logs),
            "    server 127.0.0.1:8000 ": f"    server 127.0.0.1:{nodes[0].public} ",
            "    # server 10.0.0.12:8000 ": f"    server 127.0.0.1:{nodes[1].public} ",
        },
    )
    folders = "".join(
        f"{kind}_temp_path {folder.path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"""
daemon off;
pid {folder.path}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
{folders}
include {folder.write("site.conf", site)};
}}
"""
    main = folder.write("nginx.conf", main)
    command = ["nginx", "-p", folder.path, "-e", "stderr", "-c", main]
    run(*command, "-t")
    return folder.start("nginx", command), logs.read_text


def start_haproxy(folder, port, nodes):
    config = replaced(
        (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
        {
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            "/etc/haproxy/tidegate.pem": str(folder.path / "tidegate.pem"),
            "maxconn 50000": "maxconn 500",
            "server node1 127.0.0.1:8000": f"server node1 127.0.0.1:{nodes[0].public} check port {nodes[0].admin}",
            "# server node2 10.0.0.12:8000": f"server node2 127.0.0.1:{nodes[1].public} check port {nodes[1].admin}",
        },
    )
    config = folder.write("haproxy.cfg", config)
    run("haproxy", "-c", "-f", config)
    process = folder.start("haproxy", ["haproxy", "-db", "-f", config])
    return process, process.read_log


async def receive(socket, deadline=DEADLINE):
    return json.loads(await asyncio.wait_for(socket.recv(), deadline))


class Clients:
    """Browsers with different addresses, in front of the proxy."""

    def __init__(self, port, trusted):
        self.port, self.tls = port, ssl.create_default_context(cafile=trusted)

    def open(self, conversation, address="127.0.0.2", headers=None, query=""):
        return connect(
            f"wss://localhost:{self.port}/ws/chat/{conversation}/{query}",
            origin="https://localhost",
            additional_headers=headers,
            ssl=self.tls,
            open_timeout=DEADLINE,
            host="127.0.0.1",
            port=self.port,
            local_addr=(address, 0),
        )

    def get(self, path, **headers):
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=DEADLINE, context=self.tls) as answer:
            return json.load(answer)

    async def try_connect(self, conversation, address):
        """Returns `True`, or the reason for the refusal."""
        try:
            async with self.open(conversation, address) as opened:
                frame = await receive(opened)
                return frame["event"] == "connected" or frame
        except ConnectionClosed as closed:
            return closed.rcvd.code
        except InvalidStatus as refused:
            return refused.response.status_code
        except (OSError, InvalidMessage) as lost:
            return repr(lost)


async def a_chat_passes(clients):
    async with clients.open("42", query=f"?ref={TOKEN_IN_QUERY}") as chat:
        assert (await receive(chat))["event"] == "connected"
        await chat.send(json.dumps({"type": "ping"}))
        assert await receive(chat) == {"event": "pong"}
        await chat.send(json.dumps({"message": "one two three"}))
        frames = [await receive(chat)]
        while frames[-1]["event"] != "complete":
            frames.append(await receive(chat))
        assert [frame["chunk"] for frame in frames if frame["event"] == "chunk"] == ["one", "two", "three"]


def plain_requests_pass(clients):
    """Requests reach the API behind the gateway with the client's address and scheme."""
    lie = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "gopher"}
    received = {name.lower(): value for name, value in clients.get("/api/v1/anything", **lie).items()}
    assert "192.0.2.66" not in received["x-forwarded-for"], received
    assert received["x-forwarded-for"].startswith("127.0.0.1"), received
    assert received["x-forwarded-proto"] == "https", received


async def clients_are_told_apart(clients, nodes):
    """Clients are counted by the address that the proxy reports, whatever headers the client sends."""
    lie = {"X-Forwarded-For": "192.0.2.77"}
    held = []
    for number in range(PER_ADDRESS * len(nodes) + 1):
        opened = await clients.open(f"held-{number}", "127.0.0.3", headers=lie)
        held.append(opened)
        if (frame := await receive(opened))["event"] != "connected":
            break
    assert frame.get("error") == "too many connections", frame
    assert PER_ADDRESS < len(held), len(held)
    other = await clients.try_connect("other", "127.0.0.4")
    assert other is True, other
    for opened in held:
        await opened.close()


async def a_drain_is_seen(clients, nodes):
    """Clients of a node that stops are told to reconnect, and new clients are admitted by the other node."""
    sockets = [await clients.open("drain", f"127.0.0.{10 + number}") for number in range(4)]
    for opened in sockets:
        assert (await receive(opened))["event"] == "connected"
    ended = [asyncio.create_task(end_of(opened)) for opened in sockets]
    nodes[0].process.signal(15)
    addresses = itertools.cycle(range(20, 200))
    while nodes[0].process.popen.poll() is None:
        reconnected = await clients.try_connect("drain", f"127.0.0.{next(addresses)}")
        assert reconnected is True, reconnected
    assert nodes[0].process.popen.wait() == 0
    # Each request could be sent to the node that has stopped.
    for _ in range(10):
        reconnected = await clients.try_connect("drain", f"127.0.0.{next(addresses)}")
        assert reconnected is True, reconnected
    closed = [task.result() for task in ended if task.done()]
    assert closed and set(closed) == {("going_away", 1012)}, closed
    for opened in sockets:
        await opened.close()
    await asyncio.gather(*ended)
    return len(closed)


async def end_of(opened):
    """Returns the event of the last frame, and the close code."""
    last = None
    try:
        while True:
            last = json.loads(await opened.recv())["event"]
    except ConnectionClosed as closed:
        return last, (closed.rcvd or closed.sent).code


async def behave(clients, nodes):
    await a_chat_passes(clients)
    await clients_are_told_apart(clients, nodes)
    return await a_drain_is_seen(clients, nodes)


def answers_by_tls(clients):
    try:
        return clients.get("/api/v1/ready")
    except OSError:
        return None


def check(name, start, binary):
    api = serve_api()
    with directory() as folder:
        trusted = certificate(folder)
        config = folder.write("gateway.toml", CONFIG.format(api=api.server_port, per_address=PER_ADDRESS))
        nodes = [Gateway(folder, f"gateway-{number}", binary, config) for number in (1, 2)]
        port = free_port()
        proxy, logged = start(folder, port, nodes)
        clients = Clients(port, trusted)
        proxy.until(lambda: answers_by_tls(clients))

        plain_requests_pass(clients)
        closed = asyncio.run(behave(clients, nodes))
        line = eventually(lambda: re.search(r".*/ws/chat/42/.*", logged()), "the socket is logged")
        assert TOKEN_IN_QUERY not in logged(), line.group()
        assert not re.search(r"\b4\d\d\b.*gateway", proxy.read_log()), proxy.read_log()
    api.shutdown()
    print(f"ok: {name}: sockets, streams, addresses, a drain that {closed} of 4 clients were told of")


def main():
    binary = os.path.abspath(sys.argv[1])
    check("nginx", start_nginx, binary)
    check("HAProxy", start_haproxy, binary)


if __name__ == "__main__":
    main()
