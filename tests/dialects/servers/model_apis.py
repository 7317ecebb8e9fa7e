#!/usr/bin/env python3
"""Fake servers of model APIs, whose bytes are written by the types of the vendors' own packages. PORT is the port."""

import importlib
import os
import sys

import uvicorn
from fastapi import FastAPI

app = FastAPI()
for name in sys.argv[1:]:
    app.include_router(importlib.import_module(name).router)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
