"""HTTP and WebSockets on raw sockets, from a chosen source address."""

import asyncio
import base64
import hashlib
import hmac
import json
import struct
import time

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SECRET = b"a secret of thirty-two bytes and more"
ORIGIN = "https://app.example.com"
API_KEY = "hostile-test-key"
ISSUE = "/auth/ws-token/"


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def session(user: str) -> str:
    """A session JWT of a user, valid for an hour."""
    claims = {"user_id": user, "username": user, "exp": int(time.time()) + 3600}
    signed = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    return f"{signed}.{encode(hmac.new(SECRET, signed.encode(), hashlib.sha256).digest())}"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, with a mask of zeros."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    return head + bytes(4) + payload


def text(value: object) -> bytes:
    return frame(1, json.dumps(value).encode())


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: app.example.com", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def upgrade(path: str, *headers: str) -> bytes:
    return request("GET", path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                   f"Sec-WebSocket-Key: {KEY}", f"Origin: {ORIGIN}", *headers)


async def connect(source: str, address: tuple[str, int], limit: int = 1 << 16):
    """Opens a TCP connection from the address `source`."""
    return await asyncio.open_connection(*address, local_addr=(source, 0), limit=limit)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split(" ")[1]), headers


async def call(source: str, address: tuple[str, int], raw: bytes) -> tuple[int, bytes]:
    """Sends one request, and returns the status and the body of its answer."""
    reader, writer = await connect(source, address)
    try:
        writer.write(raw)
        status, headers = await read_head(reader)
        return status, await reader.readexactly(int(headers.get("content-length", 0)))
    finally:
        writer.transport.abort()


class Closed(Exception):
    """The other end closed the WebSocket; the code of its close frame, if it sent one."""


class Socket:
    """A WebSocket that reads and answers as it should."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, source: str, address: tuple[str, int], path: str, *headers: str) -> "Socket":
        reader, writer = await connect(source, address)
        writer.write(upgrade(path, *headers))
        status, _ = await read_head(reader)
        if status != 101:
            writer.transport.abort()
            raise Closed(f"HTTP {status}")
        return cls(reader, writer)

    async def receive(self) -> dict:
        """Returns the next event, and answers pings before it."""
        while True:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", await self.reader.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", await self.reader.readexactly(8))[0]
            payload = await self.reader.readexactly(length)
            match first & 0x0F:
                case 1:
                    return json.loads(payload)
                case 8:
                    raise Closed(f"{struct.unpack('>H', payload[:2])[0] if payload else 0} {payload[2:]!r}")
                case 9:
                    self.writer.write(frame(10, payload))

    def send(self, value: object) -> None:
        self.writer.write(text(value))

    async def close(self) -> None:
        """Closes as a browser does, and waits for the other end."""
        self.writer.write(frame(8, struct.pack(">H", 1000)))
        try:
            while True:
                await self.receive()
        except (Closed, asyncio.IncompleteReadError):
            self.writer.transport.abort()
