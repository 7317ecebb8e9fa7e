"""A graph of one node. Its model repeats what it is asked; put any other chat model in its place."""

import time

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import MessagesState, StateGraph


class Repeating(BaseChatModel):
    @property
    def _llm_type(self):
        return "repeating"

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        words = f"You said: {messages[-1].text}".split(" ")
        for at, word in enumerate(words):
            time.sleep(0.05)
            yield ChatGenerationChunk(message=AIMessageChunk(word if at == 0 else f" {word}"))
        usage = {"input_tokens": len(words) - 2, "output_tokens": len(words), "total_tokens": 2 * len(words) - 2}
        yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=usage))

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        text = "".join(chunk.text for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


def answer(state: MessagesState):
    return {"messages": [Repeating().invoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node(answer).add_edge("__start__", "answer").compile()
