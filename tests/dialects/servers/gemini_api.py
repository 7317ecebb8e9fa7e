"""Google's Gemini API: what the types of the `google-genai` package write."""

from fastapi import APIRouter, Request
from google.genai.types import Content, GenerateContentResponse
from play import CUT, HANG, event, lines, sse
from pydantic import TypeAdapter

router = APIRouter()
CONTENTS = TypeAdapter(list[Content])
COUNTS = {"promptTokenCount": 9, "candidatesTokenCount": 1, "thoughtsTokenCount": 1, "totalTokenCount": 11}
ERROR = '{"error": {"code": 503, "message": "the model is overloaded", "status": "UNAVAILABLE"}}'


def chunk(*parts, finish=None, **fields):
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, "finishReason": finish}
    return GenerateContentResponse.model_validate({
        "candidates": [candidate], "usageMetadata": COUNTS, "modelVersion": "m", "responseId": "r1", **fields,
    })


GRUESS = {"text": "Grüß"}
BLOCKED = GenerateContentResponse.model_validate(
    {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}})
SCRIPTS = {
    "text": [chunk({"text": "hm", "thought": True}), chunk(GRUESS), chunk({"text": " dich 😀"}, finish="STOP")],
    "tool": [chunk({"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Rome"}}}, finish="STOP")],
    "refusal": [BLOCKED],
    "filter": [chunk(GRUESS), chunk({"text": ""}, finish="SAFETY")],
    "length": [chunk(GRUESS), chunk({"text": ""}, finish="MAX_TOKENS")],
    "error": [chunk(GRUESS), ERROR],
    "cut": [chunk(GRUESS), CUT],
    "short": [chunk(GRUESS)],
    "hang": [chunk(GRUESS), HANG],
}


def write(step):
    return event(step.model_dump_json(by_alias=True, exclude_none=True))


def write_line(step):
    """The service writes an error in the middle as JSON without a field of the event stream."""
    if step is ERROR:
        return f"{ERROR}\r\n"
    return f"data: {step.model_dump_json(by_alias=True, exclude_none=True)}\r\n\r\n"


@router.post("/gemini/{case}/{version}/models/{model}:streamGenerateContent")
async def generate(case: str, request: Request):
    CONTENTS.validate_python((await request.json())["contents"])
    if case == "error":
        return lines(request, SCRIPTS[case], write_line, "text/event-stream")
    return sse(request, SCRIPTS[case], write)
