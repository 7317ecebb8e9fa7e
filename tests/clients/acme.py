"""Certificates that the gateway orders from Pebble, Let's Encrypt's test server for ACME: acme.py BINARY CACHE

Pebble is built from its Go module, once, and kept in CACHE. It finds the hosts of all names on this machine, and connects to
the gateway as an authority does. Without Go, or where the module cannot be had, the script says so and tests nothing.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

from websockets.asyncio.client import connect

DEADLINE = 60
MODULE = "github.com/letsencrypt/pebble/v2"
VERSION = "v2.8.0"
KEYS = pathlib.Path(__file__).resolve().parent.parent / "keys" / "server_tls"
NAMES = ["chat.tidegate.test", "www.tidegate.test"]
CONFIG = """
[server]
listen = "127.0.0.1:{public}"
reuse_port = true
threads = 1
[server.tls]
acme = {{ domains = {names}, contact = ["ops@tidegate.test"], cache_dir = "acme", directory = "{directory}", directory_ca = "{authority}" }}
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[shutdown]
drain = "1s"
[origins]
allow = ["self"]
[[route]]
path = "/open"
channel = "open"
auth = ["anonymous"]
"""


def install(cache):
    """Returns the folder of the binaries, or None."""
    folder = cache / f"pebble-{VERSION}"
    programs = ["pebble", "pebble-challtestsrv"]
    if not all((folder / name).is_file() for name in programs):
        if not shutil.which("go"):
            print("SKIPPED: Go is not installed, so orders of certificates were NOT tested against Pebble")
            return None
        folder.mkdir(parents=True, exist_ok=True)
        command = ["go", "install", *(f"{MODULE}/cmd/{name}@{VERSION}" for name in programs)]
        environment = {**os.environ, "GOBIN": str(folder)}
        if subprocess.run(command, env=environment, check=False).returncode:
            print("SKIPPED: Pebble cannot be built here, so orders of certificates were NOT tested against it")
            return None
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition):
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {DEADLINE} s for {what}")
        time.sleep(0.05)
    return value


class Authority:
    """Pebble, and a name server that has all names on 127.0.0.1. It refuses a nonce now and then, as all may."""

    def __init__(self, programs, folder, lifetime=7_776_000):
        self.programs, self.folder, self.processes = programs, folder, []
        self.tls_port, self.port, self.management, self.dns = (free_port() for _ in range(4))
        self.directory = f"https://localhost:{self.port}/dir"
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(KEYS / "localhost.pem"),
            "privateKey": str(KEYS / "localhost.key"),
            "httpPort": free_port(),
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "", "validityPeriod": lifetime}},
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}))

    def run(self, *command):
        log = (self.folder / "pebble.log").open("a")
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "3"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)

    def start(self):
        self.run(
            self.programs / "pebble-challtestsrv", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{self.dns}",
            "-management", f"127.0.0.1:{free_port()}", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
        )
        self.run(
            self.programs / "pebble", "-strict", "-config", self.folder / "pebble.json",
            "-dnsserver", f"127.0.0.1:{self.dns}",
        )
        until("Pebble", lambda: self.fetch("/roots/0"))

    def fetch(self, path):
        made = ssl.create_default_context(cafile=KEYS / "ca.pem")
        try:
            url = f"https://localhost:{self.management}{path}"
            with urllib.request.urlopen(url, timeout=5, context=made) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def root(self):
        """The authority that clients of the gateway have to trust. It is another one at each start."""
        return self.fetch("/roots/0")

    def log(self):
        return (self.folder / "pebble.log").read_text()

    def stop(self):
        while self.processes:
            process = self.processes.pop()
            process.kill()
            process.wait()


class Gateway:
    numbers = itertools.count()

    def __init__(self, binary, folder, authority, names=NAMES):
        self.folder, self.port = folder, authority.tls_port
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(
            public=self.port, names=json.dumps(names), directory=authority.directory, authority=KEYS / "ca.pem"))
        self.log = folder / f"log-{next(self.numbers)}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([binary, "serve", "--config", config], stderr=log)
        listening = until("the gateway", lambda: self.events("listening"))
        self.admin = listening[0]["admin"]

    def events(self, name):
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=DEADLINE) as answer:
            lines = answer.read().decode().splitlines()
        return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]

    def certificate(self, root, name=NAMES[0], **arguments):
        """What a client gets that trusts `root`; None if there is no connection."""
        made = ssl.create_default_context(cadata=root)
        try:
            with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as tcp:
                with made.wrap_socket(tcp, server_hostname=name, **arguments) as tls:
                    return tls.getpeercert()
        except ssl.SSLError:
            return None

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.terminate()
        code = self.process.wait(DEADLINE)
        assert code == 0, code


@contextlib.contextmanager
def running(*all_):
    try:
        yield
    finally:
        for one in all_:
            one.stop()


def ordered_and_kept(binary, authority, folder):
    """A first order, for two names. A restart uses the certificate and the account that are there."""
    gateway = Gateway(binary, folder, authority)
    with running(gateway):
        root = authority.root()
        certificate = until("a certificate", lambda: gateway.certificate(root))
        assert sorted(name for _, name in certificate["subjectAltName"]) == sorted(NAMES), certificate
        assert gateway.certificate(root, NAMES[1]) == certificate
        [issued] = until("the log", lambda: gateway.events("acme_certificate"))
        assert issued["domains"] == " ".join(NAMES), issued
        assert gateway.metric('tidegate_acme_orders_total{outcome="issued"}') == [1.0]
        [expiry] = gateway.metric("tidegate_tls_certificate_expiry_timestamp_seconds")
        assert expiry == ssl.cert_time_to_seconds(certificate["notAfter"]), expiry
        files = {file.name: file.stat().st_mode & 0o777 for file in (folder / "acme").iterdir()}
        assert all(mode == 0o600 for mode in files.values()), files
        assert not [name for name in files if name.startswith("challenge")], files
        assert (folder / "acme").stat().st_mode & 0o777 == 0o700
        asyncio.run(connected_once(gateway, root))
        # Nothing is proven that nobody asks for.
        made = ssl.create_default_context(cadata=root)
        made.set_alpn_protocols(["acme-tls/1"])
        with socket.create_connection(("127.0.0.1", gateway.port), DEADLINE) as tcp:
            try:
                made.wrap_socket(tcp, server_hostname=NAMES[0])
                raise SystemExit("a proof was given")
            except ssl.SSLError:
                pass
        secrets = [file.read_text() for file in (folder / "acme").glob("*.*")]
        assert not any(secret[:60] in gateway.log.read_text() for secret in secrets if secret)
    again = Gateway(binary, folder, authority)
    with running(again):
        assert again.certificate(root) == certificate
        assert not again.events("acme_order")


async def connected(gateway, root):
    """A client over TLS. Not the one for threads, which uses a TLS connection in two of them at a time: it is not safe."""
    made, origin = ssl.create_default_context(cadata=root), f"https://{NAMES[0]}:{gateway.port}"
    client = await connect(
        f"wss://{NAMES[0]}:{gateway.port}/open", host="127.0.0.1", port=gateway.port, ssl=made, origin=origin
    )
    event = json.loads(await asyncio.wait_for(client.recv(), DEADLINE))
    assert event["event"] == "connected", event
    return client


async def connected_once(gateway, root):
    await (await connected(gateway, root)).close()


def renewed_under_connections(binary, authority, folder):
    """Certificates that are valid for half a minute are renewed, and connections stay. Two gateways share the directory."""
    first, second = Gateway(binary, folder, authority), Gateway(binary, folder, authority)
    with running(first, second):
        root = authority.root()
        until("a certificate in both", lambda: expiries(first) and expiries(second))
        certificate = first.certificate(root)
        asyncio.run(stay_connected(first, second, root))
        assert first.certificate(root) != certificate


async def stay_connected(first, second, root):
    clients = [await connected(first, root) for _ in range(20)]
    # A config file in the middle of a change does not delay it, and is not read for it.
    (first.folder / "gateway.toml").write_text("[server]\nlisten = ")
    until("a renewal in both", lambda: all(len(expiries(gateway)) > 1 for gateway in (first, second)))
    orders = first.events("acme_certificate") + second.events("acme_certificate")
    # Each certificate was ordered once.
    assert len({line["not_after"] for line in orders}) == len(orders), orders
    for client in clients:
        await asyncio.wait_for(await client.ping(), DEADLINE)
        await client.close()


def expiries(gateway):
    return [line["not_after"] for line in gateway.events("tls_certificate")]



def refused_and_tried_again(binary, authority, folder):
    """A name that the authority blocks, and an authority that is not there at first."""
    names = ["chat.tidegate.test", "blocked.tidegate.test"]
    config = json.loads((authority.folder / "pebble.json").read_text())
    config["pebble"]["domainBlocklist"] = names[1:]
    (authority.folder / "pebble.json").write_text(json.dumps(config))
    gateway = Gateway(binary, folder, authority, names)
    with running(gateway):
        [failed] = until("a failure", lambda: gateway.events("acme_order_failed"))
        assert "localhost" in failed["reason"] and failed["retry_in_s"] == 60, failed
        # Whoever connects is refused by TLS, and the port stays open.
        with socket.create_connection(("127.0.0.1", gateway.port), DEADLINE) as tcp:
            try:
                ssl.create_default_context().wrap_socket(tcp, server_hostname=names[0])
                raise SystemExit("there is no certificate")
            except ssl.SSLError as error:
                assert "alert" in str(error).lower(), error
        authority.start()
        gateway.reload()
        failed = until("a refusal", lambda: gateway.events("acme_order_failed")[1:])[0]
        assert "blocked.tidegate.test" in failed["reason"] or "policy" in failed["reason"], failed
        root = authority.root()
        config = folder / "gateway.toml"
        config.write_text(config.read_text().replace(names[1], NAMES[1]))
        gateway.reload()
        certificate = until("a certificate", lambda: gateway.certificate(root))
        assert gateway.metric('tidegate_acme_orders_total{outcome="failed"}') == [2.0]
        # The authority forgets everything, the account as well: what is there is used, and another account is made.
        authority.stop()
        authority.start()
        assert gateway.certificate(root) == certificate
        for file in (folder / "acme").glob("*.pem"):
            file.unlink()
        gateway.reload()
        until("the loss of the account", lambda: gateway.events("acme_order_failed")[2:])
        gateway.reload()
        until("a certificate of the new authority", lambda: gateway.certificate(authority.root()))


def main(binary, cache):
    programs = install(pathlib.Path(cache))
    if programs is None:
        return
    for test, lifetime, is_started in [
        (ordered_and_kept, 7_776_000, True),
        (renewed_under_connections, 30, True),
        (refused_and_tried_again, 7_776_000, False),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            authority = Authority(programs, folder, lifetime)
            with running(authority):
                if is_started:
                    authority.start()
                try:
                    test(binary, authority, folder)
                except BaseException:
                    for log in folder.glob("log-*"):
                        print(log.name, log.read_text())
                    raise
        print(f"ok: {test.__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
