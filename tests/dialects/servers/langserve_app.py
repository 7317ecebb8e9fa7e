"""A chain behind LangServe."""

from fastapi import FastAPI
from langchain_core.runnables import RunnableGenerator
from langserve import add_routes


async def answer(inputs):
    async for value in inputs:
        yield "Grüß"
        if value == "error":
            raise RuntimeError("the model is overloaded")
        yield " dich 😀"


app = FastAPI()
add_routes(app, RunnableGenerator(answer).with_types(input_type=str, output_type=str), path="/langserve")
router = app.router
