"""Flask with a generator."""

from flask import Flask
from script import pieces

app = Flask(__name__)


@app.post("/stream/<case>")
def stream(case):
    return pieces(case), {"Content-Type": "text/event-stream"}
