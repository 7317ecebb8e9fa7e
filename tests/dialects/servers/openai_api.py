"""OpenAI's APIs: what the types of the `openai` package write."""

from fastapi import APIRouter, Request
from openai.types import responses
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.completion_usage import CompletionUsage
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.shared import ErrorObject
from play import CUT, HANG, event, sse
from pydantic import TypeAdapter

router = APIRouter()
CHAT_BODY, RESPONSES_BODY = TypeAdapter(CompletionCreateParamsStreaming), TypeAdapter(ResponseCreateParamsStreaming)
DONE = "[DONE]"
FAILURE = ErrorObject(message="the model is overloaded", type="server_error", code="overloaded", param=None)


def check(adapter, body, key):
    """Refuses a request that the official client could not have sent."""
    values = adapter.validate_python(body)
    if not isinstance(values[key], str):
        list(values[key])


def chunk(delta=None, finish=None, usage=None):
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return ChatCompletionChunk.model_validate({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [] if usage else [choice], "usage": usage,
    })



USAGE = chunk(usage=CompletionUsage(prompt_tokens=9, completion_tokens=2, total_tokens=11))
ROLE = chunk({"role": "assistant", "content": ""})
CHAT = {
    "text": [
        ROLE, chunk({"reasoning_content": "hm"}), chunk({"content": "Grüß"}), chunk({"content": " dich 😀"}),
        chunk(finish="stop"), USAGE, DONE,
    ],
    "tool": [
        ROLE, chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                                     "function": {"name": "weather", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]}),
        chunk(finish="tool_calls"), USAGE, DONE,
    ],
    "refusal": [ROLE, chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk(finish="stop"), USAGE, DONE],
    "filter": [ROLE, chunk({"content": "Grüß"}), chunk(finish="content_filter"), USAGE, DONE],
    "length": [ROLE, chunk({"content": "Grüß"}), chunk(finish="length"), USAGE, DONE],
    "error": [ROLE, chunk({"content": "Grüß"}), FAILURE, DONE],
    "cut": [ROLE, chunk({"content": "Grüß"}), CUT],
    "short": [ROLE, chunk({"content": "Grüß"})],
    "hang": [ROLE, chunk({"content": "Grüß"}), HANG],
}


def write_chunk(step, **options):
    if step is FAILURE:
        return event(f'{{"error":{step.model_dump_json()}}}')
    return event(step if step is DONE else step.model_dump_json(**options))


def write_set(step):
    """As OpenAI: fields that are not set are left out."""
    return write_chunk(step, exclude_unset=True)


@router.post("/openai/{case}/chat/completions")
async def chat(case: str, request: Request):
    check(CHAT_BODY, await request.json(), "messages")
    return sse(request, CHAT[case], write_set)


@router.post("/compatible/{case}/chat/completions")
async def compatible(case: str, request: Request):
    """As many servers that dump their own types: every field is there, and most are null."""
    check(CHAT_BODY, await request.json(), "messages")
    return sse(request, CHAT[case], write_chunk)


def response(status, **fields):
    return responses.Response.model_validate({
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": [],
        "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, **fields,
    })


TOKENS = {
    "input_tokens": 9, "output_tokens": 2, "total_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 1},
}
PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
CREATED = {"type": "response.created", "response": response("in_progress")}
MESSAGE = {"type": "response.output_item.added", "output_index": 0, "item": {
    "type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": ""}


def said(delta):
    return {"type": "response.output_text.delta", **PART, "delta": delta, "logprobs": []}


def refused(delta):
    return {"type": "response.refusal.delta", **PART, "delta": delta}


def arguments(delta):
    return {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": delta}


def end(status="completed", **fields):
    return {"type": f"response.{status}", "response": response(status, usage=TOKENS, **fields)}


RESPONSES = {
    "text": [
        CREATED,
        {"type": "response.reasoning_text.delta", **PART, "item_id": "rs_1", "delta": "hm"},
        MESSAGE, said("Grüß"), said(" dich 😀"),
        {"type": "response.output_text.done", **PART, "text": "Grüß dich 😀", "logprobs": []},
        end(),
    ],
    "tool": [
        CREATED, {"type": "response.output_item.added", "output_index": 0, "item": CALL},
        arguments('{"city":'), arguments('"Rome"}'),
        {"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 0, "name": "weather",
         "arguments": '{"city":"Rome"}'},
        {"type": "response.output_item.done", "output_index": 0, "item": {**CALL, "arguments": '{"city":"Rome"}'}},
        end(),
    ],
    "refusal": [
        CREATED, MESSAGE, refused("I can"), refused("not."),
        {"type": "response.refusal.done", **PART, "refusal": "I cannot."}, end(),
    ],
    "filter": [CREATED, said("Grüß"), end("incomplete", incomplete_details={"reason": "content_filter"})],
    "length": [CREATED, said("Grüß"), end("incomplete", incomplete_details={"reason": "max_output_tokens"})],
    "error": [
        CREATED, said("Grüß"),
        {"type": "error", "code": "overloaded", "message": "the model is overloaded", "param": None},
    ],
    "failed": [
        CREATED, said("Grüß"), {"type": "response.failed", "response": response(
            "failed", error={"code": "server_error", "message": "the model is overloaded"})},
    ],
    "cut": [CREATED, said("Grüß"), CUT],
    "short": [CREATED, said("Grüß")],
    "hang": [CREATED, said("Grüß"), HANG],
}
EVENT = TypeAdapter(responses.ResponseStreamEvent)


def numbered(script):
    return [step if step in (CUT, HANG) else EVENT.validate_python({"sequence_number": at, **step})
            for at, step in enumerate(script)]


@router.post("/openai/{case}/responses")
async def respond(case: str, request: Request):
    check(RESPONSES_BODY, await request.json(), "input")
    script = numbered(RESPONSES[case])
    return sse(request, script, lambda step: event(step.model_dump_json(exclude_unset=True), step.type))
