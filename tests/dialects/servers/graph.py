"""An agent with one tool. The first message is the name of the script that its model follows."""

import time

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

USAGE = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}


def call(**piece):
    return {"content": "", "tool_call_chunks": [{"index": 0, "id": None, "name": None, "args": "", **piece}]}


SCRIPTS = {
    "text": [
        {"content": "Grüß"}, {"content": " dich 😀"},
        {"content": "", "usage_metadata": USAGE, "response_metadata": {"finish_reason": "stop"}},
    ],
    "tool": [call(id="call_1", name="weather"), call(args='{"city":'), call(args='"Rome"}')],
    "error": [{"content": "Grüß"}],
    "hang": [{"content": "Grüß"}] * 200,
}


class ScriptedModel(BaseChatModel):
    @property
    def _llm_type(self):
        return "scripted"

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        name = "text" if any(message.type == "tool" for message in messages) else messages[0].content
        for fields in SCRIPTS[name]:
            yield ChatGenerationChunk(message=AIMessageChunk(**fields))
            if name == "hang":
                time.sleep(0.1)
        if name == "error":
            raise RuntimeError("the model is overloaded")

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        chunks = [chunk.message for chunk in self._stream(messages)]
        return ChatResult(generations=[ChatGeneration(message=sum(chunks[1:], chunks[0]))])


@tool
def weather(city: str) -> str:
    """The weather of a city"""
    return f"clear in {city}"


def agent(state):
    return {"messages": [ScriptedModel().invoke(state["messages"])]}


graph = (
    StateGraph(MessagesState)
    .add_node("agent", agent)
    .add_node("tools", ToolNode([weather]))
    .add_edge("__start__", "agent")
    .add_conditional_edges("agent", tools_condition)
    .add_edge("tools", "agent")
    .compile()
)
