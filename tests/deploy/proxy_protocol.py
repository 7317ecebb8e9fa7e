"""Tests `[server] proxy_protocol` behind real load balancers that pass on TCP: proxy_protocol.py BINARY

HAProxy sends both versions of the header, with TLS of its own and without, and checks the gateway's health; nginx sends
version 1. Needs nginx with its stream module, haproxy and openssl, and the Python package websockets.
"""

import asyncio
import contextlib
import http.client
import json
import os
import ssl
import sys
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from parts import DEADLINE, Gateway, directory, eventually, free_port, run
from proxies import certificate, receive, serve_api

# The number of connections that one client address may have open.
PER_ADDRESS = 2
# The address of plain requests. 127.0.0.1 is the load balancer's.
CLIENT = "127.0.0.9"

CONFIG = """
[server]
trusted_proxies = ["127.0.0.1/32"]
proxy_protocol = "required"
max_connections_per_ip = {per_address}
[origins]
allow = ["self"]
[proxy]
upstream = "http://127.0.0.1:{api}"
[[route]]
path = "/ws/{{room}}"
channel = "room_{{room}}"
auth = ["anonymous"]
"""

# The ways in which HAProxy passes connections on: the port's name, what `bind` and `server` have.
WAYS = {
    "version 1": ("", "send-proxy"),
    "version 2": ("", "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
    "version 2 and TLS": ("ssl crt {crt}", "send-proxy-v2-ssl proxy-v2-options ssl,cert-cn,ssl-cipher,crc32c,authority"),
}


def start_haproxy(folder, gateway):
    """Starts HAProxy. Returns its process, and the port of each way."""
    ports, sections = {}, []
    for number, (way, (bind, server)) in enumerate(WAYS.items()):
        ports[way] = free_port()
        bind = bind.format(crt=folder.path / "tidegate.pem")
        sections.append(f"""
listen way{number}
    mode tcp
    bind 127.0.0.1:{ports[way]} {bind}
    unique-id-format %[uuid]
    server node 127.0.0.1:{gateway.public} {server} check inter 50ms
""")
    config = "defaults\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n" + "".join(sections)
    path = folder.write("haproxy.cfg", config)
    run("haproxy", "-c", "-f", path)
    return folder.start("haproxy", ["haproxy", "-db", "-f", path]), ports


def start_nginx(folder, gateway):
    port = free_port()
    path = folder.write("nginx.conf", f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid {folder.path}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 1024; }}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass 127.0.0.1:{gateway.public};
        proxy_protocol on;
    }}
}}
""")
    command = ["nginx", "-p", folder.path, "-e", "stderr", "-c", path]
    run(*command, "-t")
    return folder.start("nginx", command), {"nginx": port}


class Clients:
    """Clients with different addresses, in front of a load balancer."""

    def __init__(self, port, trusted):
        self.port = port
        self.tls = ssl.create_default_context(cafile=trusted) if trusted else None

    def url(self, scheme, path):
        return f"{scheme}{'s' if self.tls else ''}://localhost:{self.port}{path}"

    def open(self, address):
        return connect(
            self.url("ws", "/ws/1"),
            origin=self.url("http", ""),
            ssl=self.tls,
            open_timeout=DEADLINE,
            host="127.0.0.1",
            port=self.port,
            local_addr=(address, 0),
        )

    def get(self, path, **headers):
        source = {"timeout": DEADLINE, "source_address": (CLIENT, 0)}
        if self.tls:
            connection = http.client.HTTPSConnection("localhost", self.port, context=self.tls, **source)
        else:
            connection = http.client.HTTPConnection("localhost", self.port, **source)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            return json.load(connection.getresponse())


async def are_told_apart(clients):
    held = []
    for address in ("127.0.0.3", "127.0.0.4", "127.0.0.5"):
        for _ in range(PER_ADDRESS):
            opened = await clients.open(address)
            held.append(opened)
            assert (await receive(opened))["event"] == "connected"
        try:
            async with clients.open(address):
                raise AssertionError(f"{address} has {PER_ADDRESS + 1} connections")
        except InvalidStatus as refused:
            assert refused.response.status_code == 429, refused
        except (OSError, InvalidMessage, ConnectionClosed) as lost:
            raise AssertionError("no answer") from lost
    for opened in held:
        await opened.close()


def check(name, clients):
    lie = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "gopher"}
    received = {name.lower(): value for name, value in clients.get("/anything", **lie).items()}
    assert received["x-forwarded-for"] == CLIENT, received
    assert received["x-forwarded-proto"] == ("https" if clients.tls else "http"), received
    asyncio.run(are_told_apart(clients))
    print(f"ok: {name}: addresses, the scheme")


def refused_headers(gateway):
    with urllib.request.urlopen(f"{gateway.admin_url}/metrics", timeout=DEADLINE) as metrics:
        lines = metrics.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tidegate_proxy_headers_refused_total"))


def main():
    binary = os.path.abspath(sys.argv[1])
    api = serve_api()
    with directory() as folder:
        trusted = certificate(folder)
        config = CONFIG.format(api=api.server_port, per_address=PER_ADDRESS)
        gateway = Gateway(folder, "gateway", binary, folder.write("gateway.toml", config))
        haproxy, ports = start_haproxy(folder, gateway)
        nginx, of_nginx = start_nginx(folder, gateway)
        for way, port in {**ports, **of_nginx}.items():
            clients = Clients(port, trusted if "TLS" in way else None)
            eventually(lambda: answers(clients), f"{way} answers")
            check(way, clients)
        # Health checks end without a header or are the load balancer's own (LOCAL), and are no faults.
        assert refused_headers(gateway) == 0
        assert "is DOWN" not in haproxy.read_log(), haproxy.read_log()
    api.shutdown()


def answers(clients):
    try:
        return clients.get("/ready")
    except OSError:
        return None


if __name__ == "__main__":
    main()
