"""Streams scripted events with FastAPI and sse-starlette, and says when a client has closed its connection."""

import asyncio
import json
import time

from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

# Steps of a script that are no events.
CUT, HANG = object(), object()


class Cut(Exception):
    """The backend dies in the middle: the server closes the connection without the end of the body."""


def say(event, **fields):
    """A line of the server's own log."""
    print(json.dumps({"event": event, "at": time.time(), **fields}), flush=True)


async def play(request, script, encode):
    for step in script:
        if step is CUT:
            raise Cut
        if step is HANG:
            await until_closed(request)
            return
        yield encode(step)
        # What was yielded is written before the next step, as with a model that takes its time.
        await asyncio.sleep(0)


async def until_closed(request):
    say("hanging", path=request.url.path)
    try:
        while not await request.is_disconnected():
            await asyncio.sleep(0.002)
    finally:
        say("closed", path=request.url.path)


def sse(request, script, encode):
    """Answers with an event stream, whose lines sse-starlette ends with CRLF."""
    return EventSourceResponse(play(request, script, encode))


def lines(request, script, encode, media_type):
    """Answers with pieces of text as they are."""
    return StreamingResponse(play(request, script, encode), media_type=media_type)


def event(data, name=None):
    return ServerSentEvent(data=data, event=name)
