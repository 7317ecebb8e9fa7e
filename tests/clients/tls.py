"""Connects to a gateway with TLS by clients of other implementations: tls.py BINARY

OpenSSL (versions, ciphers, names, chains, resumption, renegotiation), curl and Python's websockets.
"""

import asyncio
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from websockets.asyncio.client import connect

DEADLINE = 30
KEYS = pathlib.Path(__file__).parent.parent / "keys" / "server_tls"
CONFIG = """
[server]
listen = "127.0.0.1:0"
threads = 2
[server.tls]
certificate = "{keys}/localhost.pem"
key = "{keys}/localhost.key"
[[server.tls.certificates]]
certificate = "{keys}/wildcard.pem"
key = "{keys}/wildcard.key"
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[origins]
allow = ["self"]
[[route]]
path = "/open"
channel = "open"
auth = ["anonymous"]
[[route]]
path = "/health"
reply = '{{"ok":true}}'
"""


class Gateway:
    def __init__(self, binary):
        self.folder = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.folder.name) / "gateway.toml"
        config.write_text(CONFIG.format(keys=KEYS))
        self.process = subprocess.Popen(
            [binary, "serve", "--config", config], stderr=subprocess.PIPE, text=True
        )
        for line in self.process.stderr:
            event = json.loads(line)
            event = {**event, **event.get("fields", {})}
            if event.get("event") == "listening":
                self.port = int(event["public"].rsplit(":", 1)[1])
                return
        raise SystemExit("the gateway did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


def context(**versions):
    made = ssl.create_default_context(cafile=KEYS / "ca.pem")
    for name, version in versions.items():
        setattr(made, name, version)
    return made


def python_ssl(gateway):
    expected = {
        ssl.TLSVersion.TLSv1_2: ("TLSv1.2", "ECDHE-ECDSA-"),
        ssl.TLSVersion.TLSv1_3: ("TLSv1.3", "TLS_"),
    }
    for version, (name, cipher) in expected.items():
        made = context(minimum_version=version, maximum_version=version)
        made.set_alpn_protocols(["h3", "http/1.1"])
        with socket.create_connection(("127.0.0.1", gateway.port), DEADLINE) as tcp:
            with made.wrap_socket(tcp, server_hostname="localhost") as tls:
                assert tls.version() == name, tls.version()
                assert tls.cipher()[0].startswith(cipher), tls.cipher()
                assert tls.selected_alpn_protocol() == "http/1.1"
    for host in ["second.test", "any.second.test"]:
        with socket.create_connection(("127.0.0.1", gateway.port), DEADLINE) as tcp:
            with context().wrap_socket(tcp, server_hostname=host) as tls:
                names = [name for _, name in tls.getpeercert()["subjectAltName"]]
                assert "*.second.test" in names, names


async def websockets(gateway):
    """Not the client for threads, which uses a TLS connection in two of them at a time: it is not safe."""
    url = f"wss://localhost:{gateway.port}/open"
    origin = f"https://localhost:{gateway.port}"
    async with connect(url, ssl=context(), origin=origin) as client:
        connected = json.loads(await asyncio.wait_for(client.recv(), DEADLINE))
        assert connected["event"] == "connected", connected
        await asyncio.wait_for(await client.ping(), DEADLINE)


def openssl(gateway):
    def s_client(*arguments, stdin="Q\n"):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}"]
        command += ["-CAfile", str(KEYS / "ca.pem"), "-servername", "localhost", *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        return done.stdout + done.stderr

    for version in ["-tls1_2", "-tls1_3"]:
        said = s_client(version, "-verify_return_error", "-verify_hostname", "localhost")
        assert "Verify return code: 0 (ok)" in said, said
        assert "Tidegate test intermediate" in said, said
        assert "Compression: NONE" in said or version == "-tls1_3", said
    for version in ["-tls1", "-tls1_1"]:
        said = s_client(version, "-cipher", "ALL:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said or "no protocols available" in said, said
    for cipher in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"]:
        said = s_client("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said, said
    # A client that asks for another handshake is refused, and its connection ends or goes on.
    said = s_client("-tls1_2", stdin="R\nQ\n")
    assert "Verify return code: 0 (ok)" in said, said
    with tempfile.NamedTemporaryFile() as session:
        s_client("-tls1_2", "-sess_out", session.name)
        said = s_client("-tls1_2", "-sess_in", session.name)
        assert "Reused, TLSv1.2" in said, said


def curl(gateway):
    command = ["curl", "--silent", "--show-error", "--max-time", str(DEADLINE), "--cacert"]
    command += [str(KEYS / "ca.pem"), f"https://localhost:{gateway.port}/health"]
    for more in [[], ["--tls-max", "1.2"], ["--http1.0"], ["--data", "x" * 100_000]]:
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        is_answered = done.returncode == 0 and ("ok" in done.stdout or "--data" in more)
        assert is_answered, (more, done.stdout, done.stderr)


def main(binary):
    gateway = Gateway(binary)
    try:
        python_ssl(gateway)
        asyncio.run(websockets(gateway))
        for name, test in [("openssl", openssl), ("curl", curl)]:
            if shutil.which(name):
                test(gateway)
            else:
                print(f"{name} is not installed: not tested with it")
    finally:
        gateway.stop()
    print(f"TLS: {ssl.OPENSSL_VERSION}, websockets and the command line agree with the gateway")


if __name__ == "__main__":
    started = time.monotonic()
    main(sys.argv[1])
    print(f"in {time.monotonic() - started:.1f} s")
