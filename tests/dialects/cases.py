"""What the gateway publishes for each script of each API."""

GRUESS = {"event": "chunk", "chunk": "Grüß"}
DICH = {"event": "chunk", "chunk": " dich 😀"}
HM = {"event": "reasoning", "reasoning": "hm"}
LOST = {"event": "error", "code": "worker_lost", "error": "the reply broke off"}
CANCELLED = {"event": "cancelled"}
WEATHER = {"id": "call_1", "name": "weather"}
ROME = '{"city":"Rome"}'
ERROR = {"event": "error", "code": "task_failed", "error": "the model is overloaded"}


def usage(input_tokens=9, output_tokens=2, **fields):
    return {
        "event": "usage", "input_tokens": input_tokens, "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens, **fields,
    }


def complete(reason="stop", raw=None):
    return {"event": "complete", "finish_reason": reason, **({"raw_finish_reason": raw} if raw else {})}


def call(state, **fields):
    return {"event": "tool_call", "state": state, **WEATHER, **fields}


def streamed_call(arguments=ROME):
    """A call whose arguments come in two pieces."""
    pieces = [call("arguments", delta=delta) for delta in ('{"city":', '"Rome"}')]
    return [call("start"), *pieces, call("end", arguments=arguments)]


def whole_call(arguments=ROME):
    return [call("start"), call("end", arguments=arguments)]


def result(value, **fields):
    return {"event": "tool_result", "id": "call_1", **fields, "result": value}


def refused(text):
    return {"event": "chunk", "chunk": text, "refusal": True}


def native(data, name=None):
    return {"event": "native", **({"name": name} if name else {}), "data": data}


BROKEN = {"cut": [GRUESS, LOST], "short": [GRUESS, LOST]}
OPENAI = {
    "text": [HM, GRUESS, DICH, usage(), complete()],
    "tool": [*streamed_call(), usage(), complete("tool_calls")],
    "refusal": [refused("I can"), refused("not."), usage(), complete("refusal", "stop")],
    "filter": [GRUESS, usage(), complete("refusal", "content_filter")],
    "length": [GRUESS, usage(), complete("length")],
    "error": [GRUESS, {**ERROR, "upstream_code": "overloaded"}],
    **BROKEN,
}
AI_SDK = {
    "text": [HM, GRUESS, DICH, usage(), complete()],
    "tool": [*streamed_call(), result({"city": "Rome", "sky": "clear"}), HM, GRUESS, DICH, usage(18, 4), complete()],
    "refusal": [GRUESS, usage(), complete("refusal", "content-filter")],
    "length": [GRUESS, usage(), complete("length")],
    "error": [GRUESS, ERROR],
    "cut": [GRUESS, LOST],
}
AG_UI = {
    "text": [HM, GRUESS, DICH, usage(), complete()],
    "cancelled": [GRUESS, usage(), CANCELLED],
    "error": [GRUESS, {**ERROR, "upstream_code": "overloaded"}],
    **BROKEN,
}
PYDANTIC = {
    "text": [HM, GRUESS, DICH, complete()],
    "tool": [*streamed_call(), result("clear in Rome"), GRUESS, DICH, complete()],
    "error": [GRUESS, ERROR],
}
PYDANTIC_METADATA = native({"type": "message-metadata", "messageMetadata": {"pydantic_ai": {}}})
GRAPH = {
    "text": [GRUESS, DICH, usage(), complete()],
    "tool": [*streamed_call(), result("clear in Rome", name="weather"), GRUESS, DICH, usage(), complete()],
    "error": [GRUESS, {**ERROR, "upstream_code": "Error"}],
}

def aimock(stop, tool_calls):
    """Replies whose usage is left out, because aimock makes it up."""
    return {
        "text": [{"event": "chunk", "chunk": "Grüß dich 😀"}, complete("stop", stop if stop != "stop" else None)],
        "tool": [
            call("start"), call("end", arguments=ROME),
            complete("tool_calls", tool_calls if tool_calls != "tool_calls" else None),
        ],
    }


def litellm_error(name, code):
    text = f"litellm.{name}: {name}: OpenAIException - the model is overloaded"
    return {**ERROR, "error": text, "upstream_code": code}


LITELLM_SHORT = {
    **ERROR, "error": "litellm.APIConnectionError: openai closed the responses stream before any terminal event "
                      "(response.completed, response.incomplete or response.failed)",
}
NO_CACHE = {"cached_input_tokens": 0, "cache_write_tokens": 0}
ALL_COUNTS = usage(cached_input_tokens=0, cache_write_tokens=0, reasoning_tokens=1)

EXPECTED = {
    "openai": OPENAI,
    "compatible": OPENAI,
    "responses": {
        **OPENAI,
        "text": [HM, GRUESS, DICH, ALL_COUNTS, complete("stop", "completed")],
        "tool": [*streamed_call(), ALL_COUNTS, complete("tool_calls", "completed")],
        "refusal": [refused("I can"), refused("not."), ALL_COUNTS, complete("refusal", "completed")],
        "filter": [GRUESS, ALL_COUNTS, complete("refusal", "content_filter")],
        "length": [GRUESS, ALL_COUNTS, complete("length", "max_output_tokens")],
        "failed": [GRUESS, {**ERROR, "upstream_code": "server_error"}],
    },
    "anthropic": {
        "text": [HM, GRUESS, DICH, usage(cached_input_tokens=5), complete("stop", "end_turn")],
        "tool": [*streamed_call(), usage(cached_input_tokens=5), complete("tool_calls", "tool_use")],
        "refusal": [GRUESS, usage(cached_input_tokens=5), complete("refusal")],
        "length": [GRUESS, usage(cached_input_tokens=5), complete("length", "max_tokens")],
        "error": [GRUESS, usage(9, 1, cached_input_tokens=5), {**ERROR, "upstream_code": "overloaded_error"}],
        **BROKEN,
    },
    "gemini": {
        "text": [HM, GRUESS, DICH, usage(reasoning_tokens=1), complete("stop", "STOP")],
        "tool": [*whole_call(), usage(reasoning_tokens=1), complete("tool_calls", "STOP")],
        "refusal": [{"event": "usage", "input_tokens": 9}, complete("refusal", "PROHIBITED_CONTENT")],
        "filter": [GRUESS, usage(reasoning_tokens=1), complete("refusal", "SAFETY")],
        "length": [GRUESS, usage(reasoning_tokens=1), complete("length", "MAX_TOKENS")],
        "error": [GRUESS, usage(reasoning_tokens=1), {**ERROR, "upstream_code": "UNAVAILABLE"}],
        **BROKEN,
    },
    "ollama": {
        "text": [HM, GRUESS, DICH, usage(), complete()],
        "tool": [*whole_call(), usage(), complete("tool_calls", "stop")],
        "length": [GRUESS, usage(), complete("length")],
        "error": [GRUESS, ERROR],
        **BROKEN,
    },
    "aimock-chat": aimock("stop", "tool_calls"),
    "aimock-responses": aimock("completed", "completed"),
    "aimock-anthropic": aimock("end_turn", "tool_use"),
    "aimock-gemini": aimock("STOP", "FUNCTION_CALL"),
    "aimock-ollama": aimock("stop", "stop"),
    "litellm-chat": {
        "text": [HM, GRUESS, DICH, usage(reasoning_tokens=1), complete()],
        "tool": [*streamed_call(), usage(), complete("tool_calls")],
        "error": [GRUESS, litellm_error("APIConnectionError", "500")],
    },
    "litellm-responses": {
        "text": [HM, GRUESS, DICH, ALL_COUNTS, complete("stop", "completed")],
        "tool": [*streamed_call(), ALL_COUNTS, complete("tool_calls", "completed")],
        "error": [GRUESS, {**ERROR, "upstream_code": "overloaded"}],
        "short": [GRUESS, {**LITELLM_SHORT, "upstream_code": "server_error"}],
    },
    # It asks by the Responses API, and says that a call of a tool ends the turn.
    "litellm-anthropic": {
        "text": [GRUESS, DICH, usage(**NO_CACHE), complete("stop", "end_turn")],
        "tool": [*streamed_call(), usage(**NO_CACHE), complete("stop", "end_turn")],
        "error": [GRUESS, usage(0, 0, **NO_CACHE), litellm_error("InternalServerError", "api_error")],
        "short": [GRUESS, usage(0, 0, **NO_CACHE), {**LITELLM_SHORT, "upstream_code": "api_error"}],
    },
    "ai-sdk": AI_SDK,
    "ai-sdk-pipe": AI_SDK,
    "ai-sdk-created": {
        "text": [
            native({"type": "data-weather", "id": "d", "data": {"sky": "clear"}}),
            native({"type": "source-url", "sourceId": "s", "url": "https://example.com/"}),
            GRUESS, complete(),
        ],
        "abort": [
            native({"type": "data-weather", "id": "d", "data": {"sky": "clear"}}),
            native({"type": "source-url", "sourceId": "s", "url": "https://example.com/"}),
            GRUESS, CANCELLED,
        ],
        # It ends with [DONE], which proves nothing.
        "short": [
            native({"type": "data-weather", "id": "d", "data": {"sky": "clear"}}),
            native({"type": "source-url", "sourceId": "s", "url": "https://example.com/"}),
            GRUESS, LOST,
        ],
    },
    "ai-sdk-4": {
        "text": [HM, GRUESS, DICH, usage(), complete()],
        "tool": [
            *whole_call(), result({"city": "Rome", "sky": "clear"}), usage(), complete("tool_calls", "tool-calls"),
        ],
        "refusal": [GRUESS, usage(), complete("refusal", "content-filter")],
        "error": [GRUESS, ERROR],
        "cut": [GRUESS, LOST],
    },
    "ai-sdk-pydantic": {
        **PYDANTIC,
        "text": [HM, GRUESS, DICH, PYDANTIC_METADATA, complete()],
        "tool": [*streamed_call(), result("clear in Rome"), GRUESS, DICH, PYDANTIC_METADATA, complete()],
    },
    "ag-ui": {
        **AG_UI,
        "text": [native({"type": "STEP_STARTED", "stepName": "answer"}), HM, GRUESS, DICH,
                 native({"type": "STEP_FINISHED", "stepName": "answer"}), usage(), complete()],
        "chunks": [HM, GRUESS, DICH, usage(), complete("stop", "success")],
        "tool": [*streamed_call(), result("clear"), GRUESS, usage(), complete("stop", "success")],
        "tool_chunks": [*streamed_call(), usage(), complete()],
        "state": [
            native({"type": "STATE_SNAPSHOT", "snapshot": {"city": "Rome"}}),
            native({"type": "CUSTOM", "name": "sky", "value": "clear"}), GRUESS, usage(), complete(),
        ],
    },
    "ag-ui-node": {**AG_UI, "tool": [*streamed_call(), result("clear"), usage(), complete()]},
    "ag-ui-pydantic": {
        **PYDANTIC,
        "text": [HM, GRUESS, DICH, complete("stop", "success")],
        "tool": [*streamed_call(), result("clear in Rome"), GRUESS, DICH, complete("stop", "success")],
    },
    "langserve": {
        "text": [GRUESS, DICH, complete()],
        "error": [GRUESS, {**ERROR, "error": "Internal Server Error", "upstream_code": "500"}],
    },
    "langgraph-js": GRAPH,
    "langgraph-js-partial": {**GRAPH, "tool": [*whole_call(), *GRAPH["tool"][4:]]},
    "langgraph": {**GRAPH, "error": [GRUESS, {**ERROR, "upstream_code": "RuntimeError"}]},
    "langgraph-partial": {
        **GRAPH, "tool": [*whole_call(), *GRAPH["tool"][4:]],
        "error": [GRUESS, {**ERROR, "upstream_code": "RuntimeError"}],
    },
}
# Those whose server says when its client has gone.
HANGING = [
    "openai", "responses", "anthropic", "gemini", "ollama", "ai-sdk", "ai-sdk-4", "ag-ui", "ag-ui-node", "langgraph-js",
]
