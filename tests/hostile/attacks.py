"""Hostile clients. Each kind has an address of its own and begins again whenever it is cut off."""

import asyncio
import contextlib
import json
import logging
import os
import random
import struct
import sys

from wire import API_KEY, ISSUE, ORIGIN, Closed, Socket, call, connect, frame, read_head, request, session, text, upgrade

ERRORS = (OSError, EOFError, Closed, TimeoutError, asyncio.LimitOverrunError, ValueError)
OPEN = "/ws/open/flood/"


class Target:
    """A gateway as one attacker sees it: its ports, and the attacker's own address and session."""

    def __init__(self, public: tuple[str, int], admin: tuple[str, int], number: int) -> None:
        self.public, self.admin, self.source = public, admin, f"127.0.1.{number}"
        self.cookie = f"Cookie: csrftoken=abc; access_token={session(f'attacker{number}')}"

    async def raw(self, *pieces: bytes, admin: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(self.source, self.admin if admin else self.public, limit=1 << 12)
        for piece in pieces:
            writer.write(piece)
        return reader, writer

    async def socket(self, path: str = OPEN, *headers: str) -> Socket:
        return await Socket.open(self.source, self.public, path, *headers)


async def until_closed(reader: asyncio.StreamReader, seconds: float = 60) -> None:
    """Reads and forgets, until the other end closes or resets."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            while await reader.read(1 << 16):
                pass


async def trickle(target: Target, head: bytes, rest: bytes) -> None:
    """Sends a byte in each second, for as long as it is let."""
    reader, writer = await target.raw(head)
    closed = asyncio.create_task(until_closed(reader))
    for byte in rest:
        writer.write(bytes([byte]))
        if (await asyncio.wait([closed], timeout=1))[0]:
            break
    closed.cancel()
    writer.transport.abort()


async def slow_heads(target: Target) -> None:
    await trickle(target, b"GET /ws/open/1/ HTTP/1.1\r\n", b"X-Slow: " + b"a" * 600)


async def slow_bodies(target: Target) -> None:
    head = request("POST", ISSUE, f"Origin: {ORIGIN}", "X-CSRFToken: abc", target.cookie, "Content-Length: 5000")
    await trickle(target, head, b"{" * 600)


async def slow_uploads(target: Target) -> None:
    await trickle(target, request("POST", "/upload", "Content-Length: 5000"), b"x" * 600)


async def slow_downloads(target: Target) -> None:
    """Asks for a large file and reads nothing of it."""
    _, writer = await target.raw(request("GET", "/large"))
    writer.transport.pause_reading()
    await asyncio.sleep(60)
    writer.transport.abort()


async def slow_readers(target: Target) -> None:
    """Joins the busiest channel and reads nothing."""
    reader, writer = await target.raw(upgrade(OPEN))
    await read_head(reader)
    writer.transport.pause_reading()
    for number in range(1000):
        writer.write(text({"message": "x" * 2000, "id": f"{id(writer)}-{number}"}))
        await asyncio.sleep(0.2)
    writer.transport.abort()


async def flood(target: Target, frames: bytes) -> None:
    """Sends the same frames as fast as the gateway takes them."""
    socket = await target.socket()
    reading = asyncio.create_task(until_closed(socket.reader))
    try:
        while not reading.done():
            socket.writer.write(frames)
            await socket.writer.drain()
            # Lets the other kinds of this process have their turn.
            await asyncio.sleep(0.001)
    finally:
        reading.cancel()
        socket.writer.transport.abort()


async def pongs(target: Target) -> None:
    await flood(target, frame(10) * 10_000)


async def pings(target: Target) -> None:
    await flood(target, frame(9, b"x" * 100) * 500)


async def empty_fragments(target: Target) -> None:
    await flood(target, frame(1, b"a", fin=False) + frame(0, fin=False) * 10_000)


async def tiny_messages(target: Target) -> None:
    await flood(target, frame(1, b"1") * 1000)


async def json_pings(target: Target) -> None:
    await flood(target, text({"type": "ping"}) * 500)


async def cancels_and_refreshes(target: Target) -> None:
    frames = [text({"type": "cancel", "task_id": str(n)}) + text({"type": "refresh", "token": "x" * 500})
              for n in range(200)]
    await flood(target, b"".join(frames))


async def huge_messages(target: Target) -> None:
    """Declares a gigabyte, sends a megabyte, or sends endless fragments."""
    begin = random.choice([b"\x81\xff" + struct.pack(">Q", 1 << 30) + bytes(4), frame(1, b"x" * (1 << 20)),
                           frame(1, b"x" * 60_000, fin=False) * 20])
    socket = await target.socket()
    socket.writer.write(begin)
    await until_closed(socket.reader, 10)
    socket.writer.transport.abort()


async def deep_json(target: Target) -> None:
    """JSON that other programs cannot read."""
    socket = await target.socket()
    depth = random.choice([100, 1000, 3000])
    for body in ('{"message":"a","x":' + "[" * depth + "]" * depth + "}", '{"message":"a","x":"\\ud800"}',
                 '{"message":"a","x":1e999999}', '{"message":"a","x":' + '{"a":' * depth + "1" + "}" * depth + "}"):
        socket.writer.write(frame(1, body.encode()))
        await asyncio.sleep(0.3)
    socket.writer.transport.abort()


async def part_messages(target: Target) -> None:
    """Keeps the gateway waiting for the rest of a message."""
    socket = await target.socket()
    socket.writer.write(frame(1, b"x" * 30_000, fin=False))
    await until_closed(socket.reader, 30)
    socket.writer.transport.abort()


async def drops(target: Target) -> None:
    """Connects, sends nothing, half a head, a whole one or frames, and is gone."""
    whole = upgrade(f"/ws/open/{random.random()}/")
    _, writer = await target.raw(random.choice([b"", whole[:50], whole, whole + text({"message": "hi"}) * 5]))
    if random.random() < 0.5:
        await asyncio.sleep(0.01)
    writer.transport.abort()
    await asyncio.sleep(0.005)


async def bad_handshakes(target: Target) -> None:
    good = upgrade("/ws/chat/1/").decode()
    bad = random.choice([
        good.replace("13", "8"), good.replace("Host: app.example.com\r\n", ""), good.replace("GET", "POST"),
        good.replace(ORIGIN, "https://evil.example"), good.replace("websocket", "h2c"), good.replace("==", ""),
        good.replace("/ws/chat/1/", "/ws/chat/%00/"), good.replace("/ws/chat/1/", "/ws/open/%2e%2e/"),
        "\x16\x03\x01\x02\x00\x01\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n" * 100,
        "GET / HTTP/1.1\r\nX: " + "a" * 100_000 + "\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ])
    reader, writer = await target.raw(bad.encode("latin1"))
    await until_closed(reader, 5)
    writer.transport.abort()


async def tokens(target: Target) -> None:
    """Takes as many connection tokens as it gets, on one connection."""
    issue = request("POST", ISSUE, f"Origin: {ORIGIN}", "X-CSRFToken: abc", target.cookie, "Content-Length: 0")
    reader, writer = await target.raw()
    reading = asyncio.create_task(until_closed(reader))
    while not reading.done():
        writer.write(issue * 20)
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.transport.abort()


async def wrong_credentials(target: Target) -> None:
    kind = random.choice(["connection_token=" + "a" * 43, "connection_token=%ff", "token=a.b.c",
                          "token=" + "x" * 5000, f"token={session('x')[:-4]}AAAA"])
    reader, writer = await target.raw(upgrade(f"/ws/chat/1/?{kind}", "Cookie: access_token=a.b.c"))
    await until_closed(reader, 10)
    writer.transport.abort()


async def channels(target: Target) -> None:
    """Joins new channels without end."""
    socket = await target.socket(f"/ws/open/{random.getrandbits(64)}/")
    socket.writer.write(frame(8, struct.pack(">H", 1000)))
    await until_closed(socket.reader, 10)
    socket.writer.transport.abort()


async def half_closed(target: Target) -> None:
    """Ends its own half, and waits for the other."""
    raw = random.choice([b"", upgrade(OPEN), upgrade(OPEN)[:40], request("GET", "/large"), upgrade(OPEN) + b"\x81"])
    reader, writer = await target.raw(raw)
    writer.write_eof()
    writer.transport.pause_reading()
    await asyncio.sleep(20)
    writer.transport.abort()


async def deaf(target: Target) -> None:
    """Makes the gateway close, and neither answers nor reads nor leaves."""
    socket = await target.socket()
    socket.writer.transport.pause_reading()
    socket.writer.write(random.choice([b"\xff\xff", frame(2, b"binary"), frame(1, b"\xff")]))
    for _ in range(200):
        socket.writer.write(frame(10) * 1000)
        await asyncio.sleep(0.1)
    socket.writer.transport.abort()


async def hoard(target: Target, raw: bytes, *, admin: bool = False) -> None:
    """Holds as many connections as it gets, each with a request now and then."""
    held: list[asyncio.StreamWriter] = []
    try:
        for _ in range(300):
            _, writer = await target.raw(raw, admin=admin)
            held.append(writer)
        for _ in range(10):
            await asyncio.sleep(1)
            for writer in held:
                writer.write(raw)
    finally:
        for writer in held:
            writer.transport.abort()


async def keep_alive(target: Target) -> None:
    await hoard(target, request("GET", "/api/hello"))


async def idle_connections(target: Target) -> None:
    await hoard(target, b"")


async def admin_connections(target: Target) -> None:
    await hoard(target, request("GET", "/nothing"), admin=True)


async def wrong_keys(target: Target) -> None:
    body = json.dumps({"channel": "chat_news", "data": {}}).encode()
    await call(target.source, target.admin, request("POST", "/v1/publish", "Authorization: Bearer wrong", body=body))


async def over_the_limit(target: Target) -> None:
    """Opens more WebSockets than an address may have, and holds them."""
    held = []
    try:
        for number in range(200):
            reader, writer = await target.raw(upgrade(f"/ws/open/held{number}/"))
            held.append((asyncio.create_task(until_closed(reader, 20)), writer))
        await asyncio.sleep(20)
    finally:
        for reading, writer in held:
            reading.cancel()
            writer.transport.abort()


# Each kind, and how many of it there are at a time.
KINDS = {
    slow_heads: 50, slow_bodies: 30, slow_uploads: 10, slow_downloads: 10, slow_readers: 20, pongs: 4, pings: 4,
    empty_fragments: 4, tiny_messages: 4, json_pings: 4, cancels_and_refreshes: 4, huge_messages: 10, deep_json: 10,
    part_messages: 50, drops: 5, bad_handshakes: 5, tokens: 2, wrong_credentials: 5, channels: 5, half_closed: 40,
    deaf: 20, keep_alive: 1, idle_connections: 1, admin_connections: 2, wrong_keys: 2, over_the_limit: 1,
}


async def repeat(kind, target: Target, counts: dict[str, int]) -> None:
    while True:
        try:
            await kind(target)
        except ERRORS:
            pass
        counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
        await asyncio.sleep(0.05)


FLOODS = {pongs, pings, empty_fragments, tiny_messages, json_pings, cancels_and_refreshes}


async def attack(public: tuple[str, int], admin: tuple[str, int], floods: bool, only: list[str]) -> None:
    """Floods, or attacks in all other ways, until the standard input ends; prints how often each kind began."""
    # What measures must not wait for what attacks.
    os.nice(10)
    # It warns of each write to a connection that the gateway has closed.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    counts: dict[str, int] = {}
    running = []
    for number, (kind, many) in enumerate(KINDS.items(), start=1):
        if (kind in FLOODS) == floods and (not only or kind.__name__ in only):
            target = Target(public, admin, number)
            running += [asyncio.create_task(repeat(kind, target, counts)) for _ in range(many)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    print(json.dumps(counts))
