"""A SignalR hub. ASP.NET Core is in no registry that these tests use; this server speaks the same
protocol, and the client is Microsoft's."""

import asyncio
import os

from aiosignalr.server import Hub, SignalRServer, aiohttp_server


async def send_text(self, data):
    await self._ws.send_str(data.decode())


# It sends JSON as binary messages. Microsoft's client takes JSON only as text, as its own server sends it.
aiohttp_server._AiohttpSocket.send_bytes = send_text


class Chat(Hub):
    async def join(self, room: str) -> bool:
        await self.groups.add(room)
        return True

    async def say(self, room: str, text: str) -> bool:
        await self.clients.group(room).send("said", room, text)
        return True

    async def count(self, to: int):
        for number in range(1, to + 1):
            yield number



async def main():
    await SignalRServer(Chat).serve("127.0.0.1", int(os.environ["PORT"]), path="/hub")
    await asyncio.Event().wait()


asyncio.run(main())
