"""FastAPI with its own StreamingResponse, and with sse-starlette."""

import asyncio

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from script import BEGIN, finish
from sse_starlette import EventSourceResponse

app = FastAPI()


async def pieces(case):
    yield BEGIN
    # What was yielded has been written before the server is killed.
    await asyncio.sleep(0.05)
    yield finish(case)


async def events(case):
    async for piece in pieces(case):
        for event in piece.removesuffix("\n\n").split("\n\n"):
            yield {"data": event.removeprefix("data: ")}


@app.post("/stream/{case}")
async def stream(case: str):
    return StreamingResponse(pieces(case), media_type="text/event-stream")


@app.post("/sse/{case}")
async def sse(case: str):
    return EventSourceResponse(events(case))
