"""FastAPI with its own StreamingResponse, and with sse-starlette."""

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from script import PING, async_pieces
from sse_starlette import EventSourceResponse

app = FastAPI()


async def events(case):
    async for piece in async_pieces(case):
        if piece == PING:
            yield {"comment": "ping"}
            continue
        for event in piece.removesuffix("\n\n").split("\n\n"):
            yield {"data": event.removeprefix("data: ")}


@app.post("/stream/{case}")
async def stream(case: str):
    return StreamingResponse(async_pieces(case), media_type="text/event-stream")


@app.post("/sse/{case}")
async def sse(case: str):
    return EventSourceResponse(events(case))
