#!/usr/bin/env python3
"""An agent that speaks AG-UI, with the protocol's own types and encoder. It repeats what it is asked.

    server.py PORT
"""

import asyncio
import sys

import uvicorn
from ag_ui.core import (
    EventType,
    RunAgentInput,
    RunFinishedEvent,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
)
from ag_ui.encoder import EventEncoder
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()


async def run(asked: RunAgentInput):
    ids = {"thread_id": asked.thread_id, "run_id": asked.run_id}
    yield RunStartedEvent(type=EventType.RUN_STARTED, **ids)
    message = f"{asked.run_id}-reply"
    yield TextMessageStartEvent(type=EventType.TEXT_MESSAGE_START, message_id=message, role="assistant")
    for at, word in enumerate(f"You said: {asked.messages[-1].content}".split(" ")):
        await asyncio.sleep(0.05)
        delta = word if at == 0 else f" {word}"
        yield TextMessageContentEvent(type=EventType.TEXT_MESSAGE_CONTENT, message_id=message, delta=delta)
    yield TextMessageEndEvent(type=EventType.TEXT_MESSAGE_END, message_id=message)
    yield RunFinishedEvent(type=EventType.RUN_FINISHED, **ids)


@app.post("/agent")
async def agent(asked: RunAgentInput, request: Request):
    encoder = EventEncoder(accept=request.headers.get("accept"))
    events = (encoder.encode(event) async for event in run(asked))
    return StreamingResponse(events, media_type=encoder.get_content_type())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
