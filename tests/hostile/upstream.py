"""The backend: it streams a short reply to each message, has a large file, and takes uploads."""

import asyncio
import json

from wire import read_head

LARGE_BYTES = 50 << 20
PIECE = b"x" * (64 << 10)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    left = int(headers.get("content-length", 0))
    while left:
        left -= len(await reader.read(min(left, 1 << 16)) or b"x" * left)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            line = (await reader.readuntil(b"\r\n")).decode()
            _, headers = await read_head_after(reader, line)
            await read_body(reader, headers)
            await respond(line.split(" ")[1], writer)
    except (OSError, asyncio.IncompleteReadError, ValueError):
        pass
    finally:
        writer.transport.abort()


async def read_head_after(reader: asyncio.StreamReader, line: str) -> tuple[str, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    return line, dict(line.lower().split(": ", 1) for line in lines if ": " in line)


async def respond(path: str, writer: asyncio.StreamWriter) -> None:
    if path == "/messages":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            event = json.dumps({"event": "token", "text": f"{number} " * 10})
            writer.write(chunk(f"data: {event}\n\n".encode()))
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    elif path == "/large":
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
        writer.write(head.encode())
        for _ in range(LARGE_BYTES // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
