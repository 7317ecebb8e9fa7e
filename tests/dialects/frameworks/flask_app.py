"""Flask with a generator."""

import time

from flask import Flask
from script import BEGIN, finish

app = Flask(__name__)


def pieces(case):
    yield BEGIN
    time.sleep(0.05)
    yield finish(case)


@app.post("/stream/<case>")
def stream(case):
    return pieces(case), {"Content-Type": "text/event-stream"}
