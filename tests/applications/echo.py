"""A WebSocket echo server that has no code in common with the gateway, for scripts/autobahn."""

import asyncio

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    options = {"compression": None, "max_size": None, "ping_interval": None, "close_timeout": 5}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await server.serve_forever()


asyncio.run(main())
