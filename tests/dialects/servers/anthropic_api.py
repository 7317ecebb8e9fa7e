"""Anthropic's Messages API: what the types of the `anthropic` package write."""

from anthropic.types import ErrorResponse, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from fastapi import APIRouter, Request
from play import CUT, HANG, event, sse
from pydantic import TypeAdapter

router = APIRouter()
BODY, EVENT = TypeAdapter(MessageCreateParamsStreaming), TypeAdapter(RawMessageStreamEvent)
PING = object()
START = {"type": "message_start", "message": {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1}}}


def begin(index, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, **delta):
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stop(index):
    return {"type": "content_block_stop", "index": index}


def end(reason):
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]


TEXT = begin(0, type="text", text="")
GRUESS = delta(0, type="text_delta", text="Grüß")
OVERLOADED = ErrorResponse.model_validate(
    {"type": "error", "error": {"type": "overloaded_error", "message": "the model is overloaded"}})
SCRIPTS = {
    "text": [
        START, PING,
        begin(0, type="thinking", thinking="", signature=""), delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="c2ln"), stop(0),
        begin(1, type="text", text=""), delta(1, type="text_delta", text="Grüß"),
        delta(1, type="text_delta", text=" dich 😀"), stop(1), *end("end_turn"),
    ],
    "tool": [
        START, begin(0, type="tool_use", id="call_1", name="weather", input={}),
        delta(0, type="input_json_delta", partial_json=""), delta(0, type="input_json_delta", partial_json='{"city":'),
        delta(0, type="input_json_delta", partial_json='"Rome"}'), stop(0), *end("tool_use"),
    ],
    "refusal": [START, TEXT, GRUESS, stop(0), *end("refusal")],
    "length": [START, TEXT, GRUESS, stop(0), *end("max_tokens")],
    "error": [START, TEXT, GRUESS, OVERLOADED],
    "cut": [START, TEXT, GRUESS, CUT],
    "short": [START, TEXT, GRUESS, stop(0)],
    "hang": [START, TEXT, GRUESS, HANG],
}


def write(step):
    if step is PING:
        return event('{"type":"ping"}', "ping")
    if not isinstance(step, ErrorResponse):
        step = EVENT.validate_python(step)
    return event(step.model_dump_json(exclude_unset=True), step.type)


@router.post("/anthropic/{case}/v1/messages")
async def messages(case: str, request: Request):
    list(BODY.validate_python(await request.json())["messages"])
    return sse(request, SCRIPTS[case], write)
