"""The processes of the soak: two gateways, a Redis and its replica behind one address, and the streams' publisher."""

import asyncio
import itertools
import json
import re
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import redis.asyncio as redis

API_KEY = "an-api-key-of-the-soak-with-thirty-two-bytes"
DEADLINE = 60
CHANNELS = 20
# The seconds between two publications of a channel.
PACE = 0.2

# Whose certificate it is does not matter here; which one it is does.
TRUST_ALL = ssl.create_default_context()
TRUST_ALL.check_hostname = False
TRUST_ALL.verify_mode = ssl.CERT_NONE

CONFIG = """
[server]
listen = "127.0.0.1:0"
threads = 2
max_connections_per_ip = 0
[server.tls]
certificate = "FOLDER/tls.pem"
key = "FOLDER/tls.key"
[limits]
connects_per_ip = "off"
[admin]
listen = "127.0.0.1:0"
api_keys = ["API_KEY"]
[shutdown]
drain = "1s"
grace = "5s"
[log]
format = "json"
[origins]
allow = ["http://localhost"]
[engine]
kind = "redis"
[engine.redis]
url = "redis://127.0.0.1:REDIS/0"
[[route]]
path = "/ws/{name}/"
channel = "soak_{name}"
auth = ["anonymous"]
[route.history]
size = 1000
ttl = "5s"
[route.limits]
frames_per_connection = "LIMIT/1s"
"""


def free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Redis:
    """A redis-server with its data on disk."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.folder, self.name, self.port = folder / name, name, port
        self.folder.mkdir()
        self.process: subprocess.Popen | None = None

    async def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
                     "--appendfsync", "always", "--repl-diskless-sync-delay", "0", "--dir", str(self.folder)]
        self.process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        await until(self.answers, f"{self.name} answers")

    async def answers(self) -> bool:
        try:
            return bool(await self.run("PING"))
        except (redis.RedisError, OSError):
            return False

    async def run(self, *words: object) -> object:
        async with redis.Redis(port=self.port, socket_timeout=DEADLINE) as client:
            return await client.execute_command(*words)

    async def follow(self, primary: "Redis") -> None:
        await self.run("REPLICAOF", "127.0.0.1", primary.port)

        async def in_step() -> bool:
            info = await self.run("INFO", "replication")
            return info["master_link_status"] == "up" and info["master_sync_in_progress"] == 0

        await until(in_step, f"{self.name} follows")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Address:
    """A TCP proxy that leads to the primary, and that can drop what goes one way."""

    def __init__(self, to: Redis) -> None:
        self.to, self.drops = to, None
        self.writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.to.port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, upstream[1]}
        self.writers |= both
        try:
            await asyncio.gather(
                self.copy("to Redis", reader, upstream[1]), self.copy("from Redis", upstream[0], writer)
            )
        except asyncio.CancelledError:
            # The soak has ended.
            pass
        finally:
            for each in both:
                each.transport.abort()
            self.writers -= both

    async def copy(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                while self.drops == direction:
                    # What was dropped is lost for this connection: it ends with the fault.
                    await asyncio.sleep(0.2)
                    if self.drops != direction:
                        return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            # The other direction ends with this one.
            writer.transport.abort()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Node:
    def __init__(self, name: str, world: "World") -> None:
        self.name, self.world, self.starts = name, world, 0
        self.config = world.folder / f"{name}.toml"
        self.process: subprocess.Popen | None = None

    def write_config(self, limit: int = 200) -> None:
        text = CONFIG.replace("API_KEY", API_KEY).replace("REDIS", str(self.world.address.port))
        text = text.replace("FOLDER", str(self.world.folder))
        next_config = self.config.with_suffix(".next")
        next_config.write_text(text.replace("LIMIT", str(limit)))
        next_config.rename(self.config)

    async def start(self) -> None:
        self.starts += 1
        self.write_config()
        self.log = self.world.folder / f"{self.name}-{self.starts}.log"
        with self.log.open("wb") as log:
            command = [self.world.options.binary, "serve", "--config", self.config]
            self.process = subprocess.Popen(command, stderr=log)
        await until(lambda: self.lines('"listening"') or self.process.poll() is not None, f"{self.name} listens")
        if not self.lines('"listening"'):
            raise SystemExit(f"{self.name} does not start:\n{self.log.read_text()}")
        found = re.findall(r'"(public|admin)":"([0-9.:]+)"', self.lines('"listening"')[0])
        self.public, self.admin = dict(found)["public"], dict(found)["admin"]

    def lines(self, part: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if part in line]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> None:
        await until(lambda: self.process.poll() is not None, f"{self.name} ends")

    async def get(self, path: str) -> tuple[int, str]:
        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return await asyncio.to_thread(fetch)

    async def certificate(self) -> bytes:
        """The certificate that a new connection gets."""
        host, port = self.public.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=TRUST_ALL)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return found

    async def is_ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def gauges(self, names: dict) -> dict[str, float]:
        _, page = await self.get("/metrics")
        found = dict.fromkeys(names, 0.0)
        for line in page.splitlines():
            name = re.split("[{ ]", line)[0]
            if name in found:
                found[name] += float(line.rsplit(" ", 1)[1])
        return found


async def until(condition, what: str, deadline: float = DEADLINE):
    end = time.monotonic() + deadline
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not in {deadline:.0f} s: {what}")
        await asyncio.sleep(0.05)


def write_certificate(folder: Path) -> None:
    """Writes a new certificate and its key, one after the other, as ACME clients do."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
               "2", "-subj", "/CN=localhost", "-keyout", folder / "next.key", "-out", folder / "next.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for name in ("pem", "key"):
        (folder / f"next.{name}").rename(folder / f"tls.{name}")


class World:
    def __init__(self, options, folder: Path) -> None:
        self.options, self.folder = options, folder
        ports = free_ports(2)
        self.primary, self.replica = (Redis(folder, f"redis-{port}", port) for port in ports)
        self.address = Address(self.primary)
        self.published = [0] * CHANNELS
        self.tasks: list[asyncio.Task] = []
        # Held by whoever publishes; a failover takes all of it.
        self.publishing = asyncio.Semaphore(CHANNELS)
        self.nodes = [Node("one", self), Node("two", self)]

    async def __aenter__(self) -> "World":
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def start(self) -> None:
        write_certificate(self.folder)
        await self.primary.start()
        await self.replica.start()
        await self.replica.follow(self.primary)
        await self.address.start()
        for node in self.nodes:
            await node.start()
        await self.ready()
        self.tasks = [asyncio.create_task(self.publish(channel)) for channel in range(CHANNELS)]

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        for each in [*self.nodes, self.primary, self.replica]:
            if each.process:
                each.process.kill()
                each.process.wait()

    async def ready(self) -> None:
        for node in self.nodes:
            await until(node.is_ready, f"{node.name} is ready")

    async def publish(self, channel: int) -> None:
        """Publishes numbers to a channel, each under a key, until a node has taken it."""
        for number in itertools.count():
            body = {"channel": f"soak_{channel}", "data": {"event": "chunk", "n": number},
                    "idempotency_key": f"{channel}-{number}"}
            while not await self.take(self.nodes[(number + channel) % 2], body):
                await asyncio.sleep(0.1)
            self.published[channel] = number + 1
            await asyncio.sleep(PACE)

    async def take(self, node: Node, body: dict) -> bool:
        async with self.publishing:
            return await self.post(node, body)

    async def post(self, node: Node, body: dict) -> bool:
        def send() -> bool:
            headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
            data = json.dumps(body).encode()
            request = urllib.request.Request(f"http://{node.admin}/v1/publish", data, headers)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return answer.status == 200
            except OSError:
                return False

        return await asyncio.to_thread(send)
