"""Clients that follow the numbered streams, leave in any way, come back and resume."""

import asyncio
import json
import random
import time
from collections import Counter

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from world import CHANNELS, TRUST_ALL, World, until


class Follower:
    def __init__(self, followers: "Followers", number: int) -> None:
        self.followers, self.world, self.channel = followers, followers.world, number % CHANNELS
        self.name = f"client {number}"
        # The position to resume from, and the number that must come next; None = any.
        self.position: tuple[int, str] | None = None
        self.next: int | None = None
        self.is_leaving = False

    async def run(self) -> None:
        while not self.is_leaving:
            node = random.choice(self.world.nodes)
            query = "?since={}&epoch={}".format(*self.position) if self.position else ""
            url = f"wss://{node.public}/ws/{self.channel}/{query}"
            try:
                async with asyncio.timeout(20):
                    options = {"origin": "http://localhost", "ping_interval": None, "close_timeout": 1}
                    socket = await connect(url, ssl=TRUST_ALL, **options)
            except (OSError, InvalidHandshake, InvalidMessage, EOFError, TimeoutError):
                self.followers.counts["refused or unreachable"] += 1
                await asyncio.sleep(random.uniform(0.1, 0.5))
                continue
            try:
                await self.follow(socket)
            finally:
                socket.transport.abort()
            # Some are away for longer than a history is kept.
            await asyncio.sleep(random.choice([0, 0, 0.2, 1, 7]))

    async def follow(self, socket) -> None:
        counts = self.followers.counts
        stays = float("inf") if self.followers.is_finishing else random.expovariate(1 / 10)
        try:
            async with asyncio.timeout(stays if stays < 1e9 else None):
                async for text in socket:
                    self.received(json.loads(text))
            counts[f"closed {socket.close_code}"] += 1
        except TimeoutError:
            if random.random() < 0.5:
                counts["cut by the client"] += 1
            else:
                counts["closed by the client"] += 1
                await socket.close()
        except ConnectionClosed as closed:
            counts[f"closed {closed.rcvd.code if closed.rcvd else 'without a word'}"] += 1

    def received(self, frame: dict) -> None:
        counts = self.followers.counts
        if frame["event"] == "connected":
            asked, self.position = self.position, (frame["offset"], frame["epoch"])
            if asked and frame.get("recovered"):
                counts["resumed"] += 1
                if asked != self.position:
                    self.fault(f"recovered from {self.position} instead of {asked}")
            else:
                counts["told" if asked else "new"] += 1
                self.next = None
        elif frame["event"] == "chunk":
            number = frame["n"]
            if self.next is not None and number != self.next:
                kind = "repeated" if number < self.next else "lost"
                self.fault(f"{kind}: {number} came instead of {self.next}, at {frame.get('offset')}")
            self.next = number + 1
            counts["chunks"] += 1
            if number % 100 == 99:
                counts["whole streams"] += 1
            if frame["offset"] != self.position[0] + 1 and frame["offset"] != 1:
                self.fault(f"offset {frame['offset']} follows {self.position[0]}")
            self.position = (frame["offset"], frame.get("epoch") or self.position[1])

    def fault(self, text: str) -> None:
        self.followers.faults.append(f"{self.name} on channel {self.channel}: {text}")


class Followers:
    def __init__(self, world: World, count: int) -> None:
        self.world, self.counts, self.faults = world, Counter(), []
        self.is_finishing = False
        self.followers = [Follower(self, number) for number in range(count)]
        self.tasks: list[asyncio.Task] = []

    async def run(self, seconds: float) -> None:
        self.tasks = [asyncio.create_task(follower.run()) for follower in self.followers]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            for task in self.tasks:
                if task.done():
                    task.result()

    async def finish(self) -> None:
        """Lets every client stay until it has what is published now."""
        self.is_finishing = True
        published = list(self.world.published)

        def all_have_it() -> bool:
            return all((each.next or 0) >= published[each.channel] for each in self.followers)

        await until(all_have_it, "every client has everything")

    async def leave(self) -> None:
        for follower in self.followers:
            follower.is_leaving = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def summary(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
