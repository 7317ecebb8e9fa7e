"""Clients that do what a page does, and note every error."""

import asyncio
import contextlib
import itertools
import json
import random
import time
import uuid
from dataclasses import dataclass, field

from wire import API_KEY, ISSUE, ORIGIN, Closed, Socket, call, request, session

# Longer than anything that a working gateway needs on a busy machine.
DEADLINE = 15
ERRORS = (OSError, EOFError, Closed, TimeoutError, AssertionError, ValueError, KeyError)


@dataclass
class Notes:
    """What honest clients met."""

    errors: list[str] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)
    connects: int = 0
    publications: int = 0

    def percentile(self, share: float) -> float:
        """The time within which this share of the messages had its reply, in milliseconds."""
        ordered = sorted(self.replies)
        return round(ordered[int(share * (len(ordered) - 1))] * 1000, 1) if ordered else 0.0


@contextlib.contextmanager
def noted(notes: Notes, what: str):
    try:
        yield
    except ERRORS as error:
        notes.errors.append(f"{time.strftime('%X')} {what}: {type(error).__name__} {error}")


def expect(condition: bool, what: object) -> None:
    if not condition:
        raise AssertionError(what)


class Page:
    """A page of one user: it gets tokens, connects, sends messages and waits for their replies."""

    def __init__(self, number: int, public: tuple[str, int], notes: Notes) -> None:
        self.user, self.source = f"user{number}", f"127.0.0.{10 + number % 10}"
        self.public, self.notes = public, notes
        self.cookie = f"Cookie: csrftoken=abc; access_token={session(self.user)}"

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with noted(self.notes, self.user):
                async with asyncio.timeout(DEADLINE):
                    socket = await self.connect()
                for _ in range(random.randint(5, 15)):
                    async with asyncio.timeout(DEADLINE):
                        await self.converse(socket)
                    await asyncio.sleep(random.uniform(0.5, 1.0))
                    if stop.is_set():
                        break
                async with asyncio.timeout(DEADLINE):
                    await socket.close()
                    answer = await call(self.source, self.public, request("GET", "/api/hello", self.cookie))
                expect(answer == (200, b"ok"), answer)

    async def connect(self) -> Socket:
        issue = request("POST", ISSUE, f"Origin: {ORIGIN}", "X-CSRFToken: abc", self.cookie, "Content-Length: 0")
        status, body = await call(self.source, self.public, issue)
        expect(status == 200, f"token request: {status} {body[:200]!r}")
        token = json.loads(body)["connection_token"]
        protocols = f"Sec-WebSocket-Protocol: tidegate.v1, tidegate.token.{token}"
        socket = await Socket.open(self.source, self.public, f"/ws/chat/{self.user}/", protocols)
        event = await socket.receive()
        expect(event["event"] == "connected" and event["user_id"] == self.user, event)
        self.notes.connects += 1
        return socket

    async def converse(self, socket: Socket) -> None:
        """Sends a message and reads its whole reply."""
        started = time.monotonic()
        socket.send({"message": "hello", "id": uuid.uuid4().hex})
        tokens = 0
        while (event := await socket.receive())["event"] != "complete":
            expect(event["event"] in ("task_queued", "processing_started", "token"), event)
            tokens += event["event"] == "token"
        expect(tokens == 3, f"{tokens} tokens in a reply")
        self.notes.replies.append(time.monotonic() - started)


async def listen(number: int, public: tuple[str, int], notes: Notes, stop: asyncio.Event) -> None:
    """Receives what is published to one channel: each publication once and in order."""
    page = Page(number, public, notes)
    page.user = f"listener{number}"
    page.cookie = f"Cookie: csrftoken=abc; access_token={session(page.user)}"
    path = f"/ws/chat/news/"
    while not stop.is_set():
        with noted(notes, page.user):
            async with asyncio.timeout(DEADLINE):
                socket = await page_socket(page, path)
            last = None
            while not stop.is_set():
                async with asyncio.timeout(DEADLINE):
                    event = await socket.receive()
                expect(event["event"] == "news", event)
                expect(last is None or event["number"] == last + 1, f"{event} after {last}")
                last = event["number"]
                notes.publications += 1
            async with asyncio.timeout(DEADLINE):
                await socket.close()


async def page_socket(page: Page, path: str) -> Socket:
    socket = await Socket.open(page.source, page.public, path, page.cookie)
    expect((await socket.receive())["event"] == "connected", "the first event")
    return socket


async def publish(admin: tuple[str, int], notes: Notes, stop: asyncio.Event) -> None:
    """Publishes ten times a second, and asks for the health of the gateway once a second."""
    for number in itertools.count():
        if stop.is_set():
            return
        with noted(notes, "publisher"):
            publication = {"channel": "chat_news", "data": {"event": "news", "number": number}}
            body = json.dumps(publication).encode()
            raw = request("POST", "/v1/publish", f"Authorization: Bearer {API_KEY}", body=body)
            async with asyncio.timeout(DEADLINE):
                status, answer = await call("127.0.0.2", admin, raw)
            expect(status == 200, f"{status} {answer[:200]!r}")
        if number % 10 == 0:
            for path in ("/livez", "/readyz", "/metrics"):
                with noted(notes, path):
                    async with asyncio.timeout(DEADLINE):
                        status, _ = await call("127.0.0.3", admin, request("GET", path))
                    expect(status == 200, status)
        await asyncio.sleep(0.1)
