"""The APIs that the gateway stands in front of: which server plays them, and what the gateway sends there."""

import json
from dataclasses import dataclass


def message(case, **fields):
    """What a page sends. Its text is the name of the script that the server plays."""
    return {
        "message": case, "input": case, "messages": [{"role": "user", "content": case}],
        "contents": [{"role": "user", "parts": [{"text": case}]}],
        "ui_messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": case}]}],
        "ag_ui_messages": [{"id": "u1", "role": "user", "content": case}],
        **fields,
    }


class Field(str):
    """A field of the page's message."""


def toml(value):
    """A template of a body, as it stands in a config."""
    if isinstance(value, Field):
        return f"{{ field = {json.dumps(value)} }}"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(member)}" for name, member in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def filled(value, fields):
    """The body that a template makes of a message."""
    if isinstance(value, Field):
        return fields[value]
    if isinstance(value, dict):
        return {name: filled(member, fields) for name, member in value.items()}
    return value


CHAT = {"model": "m", "stream": True, "messages": Field("messages")}
# It has a model for each script.
LITELLM = {"model": Field("message"), "stream": True}
UI = {"id": "{channel}", "trigger": "submit-message", "messages": Field("ui_messages")}
RUN = {
    "threadId": "{channel}", "runId": "run1", "state": {}, "messages": Field("ag_ui_messages"), "tools": [], "context": [],
    "forwardedProps": {},
}


def graph(mode):
    return {
        "assistant_id": "agent", "input": {"messages": Field("messages")}, "if_not_exists": "create",
        "on_disconnect": "cancel", "stream_mode": [mode],
    }


THREAD = "/threads/{conversation}/runs/stream"


@dataclass
class Api:
    """`path` is that of the server; `{case}` and `{conversation}` in it are those of the page's path."""

    name: str
    dialect: str
    server: str
    path: str
    body: dict


ALL = [
    Api("openai", "openai-chat", "models", "/openai/{case}/chat/completions", CHAT),
    Api("compatible", "openai-chat", "models", "/compatible/{case}/chat/completions", CHAT),
    Api("responses", "openai-responses", "models", "/openai/{case}/responses",
        {"model": "m", "stream": True, "input": Field("input")}),
    Api("anthropic", "anthropic", "models", "/anthropic/{case}/v1/messages",
        {**CHAT, "max_tokens": 100}),
    Api("gemini", "gemini", "models", "/gemini/{case}/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": Field("contents")}),
    Api("ollama", "ollama", "models", "/ollama/{case}/api/chat", CHAT),
    Api("aimock-chat", "openai-chat", "aimock", "/v1/chat/completions",
        {**CHAT, "stream_options": {"include_usage": True}}),
    Api("aimock-responses", "openai-responses", "aimock", "/v1/responses",
        {"model": "m", "stream": True, "input": Field("input")}),
    Api("aimock-anthropic", "anthropic", "aimock", "/v1/messages", {**CHAT, "max_tokens": 100}),
    Api("aimock-gemini", "gemini", "aimock", "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": Field("contents")}),
    Api("aimock-ollama", "ollama", "aimock", "/api/chat", CHAT),
    Api("litellm-chat", "openai-chat", "litellm", "/v1/chat/completions",
        {**LITELLM, "messages": Field("messages"), "stream_options": {"include_usage": True}}),
    Api("litellm-responses", "openai-responses", "litellm", "/v1/responses", {**LITELLM, "input": Field("input")}),
    Api("litellm-anthropic", "anthropic", "litellm", "/v1/messages",
        {**LITELLM, "messages": Field("messages"), "max_tokens": 100}),
    Api("ai-sdk", "ai-sdk", "ai_sdk", "/ui/{case}", UI),
    Api("ai-sdk-pipe", "ai-sdk", "ai_sdk", "/pipe/{case}", UI),
    Api("ai-sdk-created", "ai-sdk", "ai_sdk", "/create/{case}", UI),
    Api("ai-sdk-4", "ai-sdk", "ai_sdk", "/legacy/{case}", UI),
    Api("ai-sdk-pydantic", "ai-sdk", "agents", "/pydantic-ai-sdk", UI),
    Api("ag-ui", "ag-ui", "agents", "/ag-ui/{case}", RUN),
    Api("ag-ui-node", "ag-ui", "ag_ui", "/{case}", RUN),
    Api("ag-ui-pydantic", "ag-ui", "agents", "/pydantic-ag-ui", RUN),
    Api("langserve", "langgraph", "agents", "/langserve/stream", {"input": Field("input")}),
    Api("langgraph-js", "langgraph", "langgraph_js", THREAD, graph("messages-tuple")),
    Api("langgraph-js-partial", "langgraph", "langgraph_js", THREAD, graph("messages")),
    Api("langgraph", "langgraph", "langgraph", THREAD, graph("messages-tuple")),
    Api("langgraph-partial", "langgraph", "langgraph", THREAD, graph("messages")),
]
# Those whose server writes the same each time.
REPEATABLE = [
    "openai", "compatible", "responses", "anthropic", "gemini", "ollama", "ai-sdk", "ai-sdk-created", "ag-ui", "ag-ui-node",
]
