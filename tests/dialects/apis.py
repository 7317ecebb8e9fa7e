"""The APIs that the gateway stands in front of: which server plays them, and what the gateway sends there."""

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


CHAT = '{ model = "m", stream = true, messages = { field = "messages" } }'
UI = '{ id = "{channel}", trigger = "submit-message", messages = { field = "ui_messages" } }'
RUN = (
    '{ threadId = "{channel}", runId = "run1", state = {}, messages = { field = "ag_ui_messages" }, tools = [], '
    "context = [], forwardedProps = {} }"
)
GRAPH = (
    '{ assistant_id = "agent", input = { messages = { field = "messages" } }, if_not_exists = "create", '
    'on_disconnect = "cancel", stream_mode = ["MODE"] }'
)
THREAD = "/threads/{conversation}/runs/stream"


@dataclass
class Api:
    """`path` is that of the server; `{case}` and `{conversation}` in it are those of the page's path."""

    name: str
    dialect: str
    server: str
    path: str
    body: str


ALL = [
    Api("openai", "openai-chat", "models", "/openai/{case}/chat/completions", CHAT),
    Api("compatible", "openai-chat", "models", "/compatible/{case}/chat/completions", CHAT),
    Api("responses", "openai-responses", "models", "/openai/{case}/responses",
        '{ model = "m", stream = true, input = { field = "input" } }'),
    Api("anthropic", "anthropic", "models", "/anthropic/{case}/v1/messages",
        '{ model = "m", stream = true, max_tokens = 100, messages = { field = "messages" } }'),
    Api("gemini", "gemini", "models", "/gemini/{case}/v1beta/models/m:streamGenerateContent?alt=sse",
        '{ contents = { field = "contents" } }'),
    Api("ollama", "ollama", "models", "/ollama/{case}/api/chat", CHAT),
    Api("ai-sdk", "ai-sdk", "ai_sdk", "/ui/{case}", UI),
    Api("ai-sdk-pipe", "ai-sdk", "ai_sdk", "/pipe/{case}", UI),
    Api("ai-sdk-created", "ai-sdk", "ai_sdk", "/create/{case}", UI),
    Api("ai-sdk-4", "ai-sdk", "ai_sdk", "/legacy/{case}", UI),
    Api("ai-sdk-pydantic", "ai-sdk", "agents", "/pydantic-ai-sdk", UI),
    Api("ag-ui", "ag-ui", "agents", "/ag-ui/{case}", RUN),
    Api("ag-ui-node", "ag-ui", "ag_ui", "/{case}", RUN),
    Api("ag-ui-pydantic", "ag-ui", "agents", "/pydantic-ag-ui", RUN),
    Api("langserve", "langgraph", "agents", "/langserve/stream", '{ input = { field = "input" } }'),
    Api("langgraph-js", "langgraph", "langgraph_js", THREAD, GRAPH.replace("MODE", "messages-tuple")),
    Api("langgraph-js-partial", "langgraph", "langgraph_js", THREAD, GRAPH.replace("MODE", "messages")),
    Api("langgraph", "langgraph", "langgraph", THREAD, GRAPH.replace("MODE", "messages-tuple")),
    Api("langgraph-partial", "langgraph", "langgraph", THREAD, GRAPH.replace("MODE", "messages")),
]
