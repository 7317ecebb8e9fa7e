"""An agent of Pydantic AI behind its own adapters for AG-UI and for the AI SDK."""

from fastapi import APIRouter, Request
from pydantic_ai import Agent
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.ui.ag_ui import AGUIAdapter
from pydantic_ai.ui.vercel_ai import VercelAIAdapter

router = APIRouter()


async def answer(messages, info: AgentInfo):
    case = str(messages[0].parts[-1].content)
    is_first = len(messages) == 1
    if case == "tool" and is_first:
        yield {0: DeltaToolCall(name="weather", json_args='{"city":', tool_call_id="call_1")}
        yield {0: DeltaToolCall(json_args='"Rome"}', tool_call_id="call_1")}
        return
    if case == "text":
        yield {0: DeltaThinkingPart(content="hm")}
    yield "Grüß"
    if case == "error":
        raise RuntimeError("the model is overloaded")
    yield " dich 😀"


agent = Agent(FunctionModel(stream_function=answer))


@agent.tool_plain
def weather(city: str) -> str:
    return f"clear in {city}"


@router.post("/pydantic-ag-ui")
async def ag_ui(request: Request):
    return await AGUIAdapter.dispatch_request(request, agent=agent)


@router.post("/pydantic-ai-sdk")
async def ai_sdk(request: Request):
    return await VercelAIAdapter.dispatch_request(request, agent=agent)
