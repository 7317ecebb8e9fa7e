"""A client as docs/delivery.md asks for: it comes back by itself, resumes, and notes everything that it is sent."""

import asyncio
import json
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

DEADLINE = 30
# When a client comes back: as `reconnect_in_ms` says (shortly after, if its connection broke), at once, or in seconds.
RETURNS = ("as told", "at once", 1.2, 5.0)
RETRY_PAUSE = 0.05


async def until(condition, what, deadline=DEADLINE):
    """Waits until `condition` returns something true or an awaitable of it, and returns that."""
    end = time.monotonic() + deadline
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"not in time: {what}"
        await asyncio.sleep(0.02)


class Client:
    """`log` has (time, kind, value); a kind is connected, refused, frame or closed. `home` is its first node."""

    def __init__(self, name, cluster, conversation, user, home, returns, random):
        self.name, self.cluster, self.conversation = name, cluster, conversation
        self.home, self.returns, self.random = home, returns, random
        self.headers = {"Cookie": f"access_token={cluster.session(user)}"}
        self.log, self.events = [], {}
        self.position = self.socket = self.reconnect_in = None
        self.task = asyncio.create_task(self.run())

    def note(self, kind, value):
        self.log.append((time.time(), kind, value))

    def has(self, *events):
        return any(self.events.get(event) for event in events)

    async def send(self, frame):
        await self.socket.send(json.dumps(frame))

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def run(self):
        node = self.home
        while True:
            if await self.stay(node or self.random.choice(self.cluster.nodes)):
                await asyncio.sleep(self.absence())
            else:
                await asyncio.sleep(RETRY_PAUSE)
            node = None

    async def stay(self, node):
        """Stays connected for as long as possible. Returns whether there was a connection."""
        query = "?since={}&epoch={}".format(*self.position) if self.position else ""
        url = f"{node.url}/ws/chat/{self.conversation}/{query}"
        options = {"additional_headers": self.headers, "origin": self.cluster.stack.url, "open_timeout": DEADLINE}
        try:
            socket = await connect(url, ping_interval=None, compression=None, close_timeout=1, **options)
        except (OSError, InvalidHandshake, EOFError):
            return False
        try:
            first = json.loads(await socket.recv())
            if first["event"] != "connected":
                self.note("refused", {"node": node.name, **first})
                return False
            self.connected(node, first)
            self.socket = socket
            async for text in socket:
                self.received(json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.socket = None
            await socket.close()
        self.note("closed", socket.close_code)
        return True

    def connected(self, node, frame):
        self.note("connected", {"node": node.name, "asked": self.position, **frame})
        self.position = (frame["offset"], frame["epoch"])

    def received(self, frame):
        self.note("frame", frame)
        self.events[frame["event"]] = frame
        if "offset" in frame:
            epoch = frame.get("epoch") if frame["offset"] == 1 else None
            self.position = (frame["offset"], epoch or self.position[1])
        if frame["event"] == "going_away":
            self.reconnect_in = frame["reconnect_in_ms"] / 1000

    def absence(self):
        told, self.reconnect_in = self.reconnect_in, None
        if self.returns == "as told":
            return self.random.uniform(0, 0.3) if told is None else told
        return 0 if self.returns == "at once" else self.returns
