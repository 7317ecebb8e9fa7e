"""Asks the fake servers with the vendors' own client libraries, which must accept them as servers."""

import anthropic
import ollama
import openai
from google import genai

HI = [{"role": "user", "content": "hi"}]
TEXT = "Grüß dich 😀"


def openai_chat(url):
    with openai.OpenAI(base_url=f"{url}/openai/text", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="m", messages=HI, stream_options={"include_usage": True}) as stream:
            answer = stream.get_final_completion()
    assert answer.choices[0].message.content == TEXT, answer
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 11), answer
    with openai.OpenAI(base_url=f"{url}/openai/tool", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="m", messages=HI) as stream:
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Rome"}'), call
    with openai.OpenAI(base_url=f"{url}/openai/error", api_key="k", max_retries=0) as client:
        try:
            list(client.chat.completions.create(model="m", messages=HI, stream=True))
        except openai.APIError as error:
            assert "overloaded" in error.message, error
        else:
            raise AssertionError("no error")


def openai_responses(url):
    with openai.OpenAI(base_url=f"{url}/openai/text", api_key="k", max_retries=0) as client:
        events = list(client.responses.create(model="m", input="hi", stream=True))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == TEXT, events
    assert events[-1].type == "response.completed", events[-1]
    assert events[-1].response.usage.total_tokens == 11, events[-1]


def anthropic_messages(url):
    def stream(case):
        client = anthropic.Anthropic(base_url=f"{url}/anthropic/{case}", api_key="k", max_retries=0)
        with client, client.messages.stream(model="m", max_tokens=100, messages=HI) as stream:
            return stream.get_final_message()

    answer = stream("text")
    assert [block.type for block in answer.content] == ["thinking", "text"], answer
    assert (answer.content[1].text, answer.stop_reason, answer.usage.output_tokens) == (TEXT, "end_turn", 2), answer
    call = stream("tool").content[0]
    assert (call.id, call.name, call.input) == ("call_1", "weather", {"city": "Rome"}), call
    try:
        stream("error")
    except anthropic.APIStatusError as error:
        assert "overloaded" in error.message, error
    else:
        raise AssertionError("no error")


def gemini(url):
    def chunks(case):
        options = genai.types.HttpOptions(base_url=f"{url}/gemini/{case}")
        client = genai.Client(api_key="k", http_options=options)
        return list(client.models.generate_content_stream(model="m", contents="hi"))

    parts = [part for chunk in chunks("text") for part in chunk.candidates[0].content.parts]
    assert "".join(part.text for part in parts if not part.thought) == TEXT, parts
    call = chunks("tool")[0].function_calls[0]
    assert (call.name, call.args) == ("weather", {"city": "Rome"}), call


def ollama_chat(url):
    def chunks(case):
        return list(ollama.Client(host=f"{url}/ollama/{case}").chat(model="m", messages=HI, stream=True))

    answer = chunks("text")
    assert "".join(line.message.content or "" for line in answer) == TEXT, answer
    assert (answer[-1].done, answer[-1].done_reason, answer[-1].eval_count) == (True, "stop", 2), answer
    assert chunks("tool")[0].message.tool_calls[0].function.arguments == {"city": "Rome"}
    try:
        chunks("error")
    except ollama.ResponseError as error:
        assert "overloaded" in error.error, error
    else:
        raise AssertionError("no error")


ALL = [openai_chat, openai_responses, anthropic_messages, gemini, ollama_chat]
