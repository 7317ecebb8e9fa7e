"""Ollama's chat API: what the types of the `ollama` package write."""

from fastapi import APIRouter, Request
from ollama import ChatResponse
from ollama._types import ChatRequest
from play import CUT, HANG, lines

router = APIRouter()
ERROR = '{"error":"the model is overloaded"}\n'


def line(content="", done=None, **fields):
    message = {"role": "assistant", "content": content, **fields}
    counts = {"done_reason": done, "prompt_eval_count": 9, "eval_count": 2, "total_duration": 5000000}
    return ChatResponse.model_validate({
        "model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": bool(done),
        **(counts if done else {}),
    })


SCRIPTS = {
    "text": [line(thinking="hm"), line("Grüß"), line(" dich 😀"), line(done="stop")],
    "tool": [
        line(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]), line(done="stop"),
    ],
    "length": [line("Grüß"), line(done="length")],
    "error": [line("Grüß"), ERROR],
    "cut": [line("Grüß"), CUT],
    "short": [line("Grüß")],
    "hang": [line("Grüß"), HANG],
}


def write(step):
    return step if step is ERROR else f"{step.model_dump_json(exclude_none=True)}\n"


@router.post("/ollama/{case}/api/chat")
async def chat(case: str, request: Request):
    ChatRequest.model_validate(await request.json())
    return lines(request, SCRIPTS[case], write, "application/x-ndjson")
