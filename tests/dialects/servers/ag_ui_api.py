"""Agents that speak AG-UI: what the encoder of `ag-ui-protocol` writes."""

from ag_ui.core import Event, RunAgentInput
from ag_ui.encoder import EventEncoder
from fastapi import APIRouter, Request
from play import CUT, HANG, lines
from pydantic import TypeAdapter

router = APIRouter()
EVENT = TypeAdapter(Event)
RUN = {"threadId": "th1", "runId": "run1"}
USAGE = [{"model": "m", "inputTokens": 9, "outputTokens": 2, "totalTokens": 11}]
STARTED = {"type": "RUN_STARTED", **RUN}
BEGIN = {"type": "TEXT_MESSAGE_START", "messageId": "m1", "role": "assistant"}
TEXT_END = {"type": "TEXT_MESSAGE_END", "messageId": "m1"}


def said(delta):
    return {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": delta}


def thought(delta):
    return {"type": "REASONING_MESSAGE_CONTENT", "messageId": "r1", "delta": delta}


def arguments(delta):
    return {"type": "TOOL_CALL_ARGS", "toolCallId": "call_1", "delta": delta}


def finished(**fields):
    return {"type": "RUN_FINISHED", **RUN, "usage": USAGE, **fields}


TOOL = [
    STARTED, {"type": "TOOL_CALL_START", "toolCallId": "call_1", "toolCallName": "weather"},
    arguments('{"city":'), arguments('"Rome"}'), {"type": "TOOL_CALL_END", "toolCallId": "call_1"},
    {"type": "TOOL_CALL_RESULT", "messageId": "m2", "toolCallId": "call_1", "content": "clear"},
]
SCRIPTS = {
    "text": [
        STARTED, {"type": "STEP_STARTED", "stepName": "answer"},
        {"type": "REASONING_START", "messageId": "r1"},
        {"type": "REASONING_MESSAGE_START", "messageId": "r1", "role": "reasoning"}, thought("hm"),
        {"type": "REASONING_MESSAGE_END", "messageId": "r1"}, {"type": "REASONING_END", "messageId": "r1"},
        BEGIN, said("Grüß"), said(" dich 😀"), TEXT_END, {"type": "STEP_FINISHED", "stepName": "answer"}, finished(),
    ],
    "chunks": [
        STARTED, {"type": "REASONING_MESSAGE_CHUNK", "messageId": "r1", "delta": "hm"},
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m1", "delta": "Grüß"},
        {"type": "TEXT_MESSAGE_CHUNK", "delta": " dich 😀"}, finished(outcome={"type": "success"}),
    ],
    "tool": [*TOOL, BEGIN, said("Grüß"), TEXT_END, finished(outcome={"type": "success"})],
    "tool_chunks": [
        STARTED, {"type": "TOOL_CALL_CHUNK", "toolCallId": "call_1", "toolCallName": "weather", "delta": '{"city":'},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "call_1", "delta": '"Rome"}'}, finished(),
    ],
    "state": [
        STARTED, {"type": "STATE_SNAPSHOT", "snapshot": {"city": "Rome"}},
        {"type": "CUSTOM", "name": "sky", "value": "clear"}, BEGIN, said("Grüß"), TEXT_END, finished(),
    ],
    "interrupt": [STARTED, finished(outcome={"type": "interrupt", "interrupts": [
        {"id": "i1", "reason": "tool_call", "message": "May I?"}]})],
    "cancelled": [STARTED, BEGIN, said("Grüß"), TEXT_END, finished(outcome={"type": "cancelled"})],
    "error": [STARTED, BEGIN, said("Grüß"), {"type": "RUN_ERROR", "message": "the model is overloaded", "code": "overloaded"}],
    "cut": [STARTED, BEGIN, said("Grüß"), CUT],
    "short": [STARTED, BEGIN, said("Grüß"), TEXT_END],
    "hang": [STARTED, BEGIN, said("Grüß"), HANG],
}


@router.post("/ag-ui/{case}")
async def run(case: str, request: Request):
    RunAgentInput.model_validate(await request.json())
    encoder = EventEncoder(accept=request.headers.get("accept"))
    return lines(request, SCRIPTS[case], lambda step: encoder.encode(EVENT.validate_python(step)), encoder.get_content_type())
