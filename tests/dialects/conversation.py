"""Clients of the gateway, and the gateway in front of the APIs."""

import json

from gateway_process import GatewayProcess
from websockets.sync.client import connect

DEADLINE = 30
TERMINAL = ("complete", "error", "cancelled")


class Tab:
    """A page that is connected to a conversation."""

    def __init__(self, url):
        self.socket = connect(url, open_timeout=DEADLINE)
        assert self.receive()["event"] == "connected"

    def receive(self):
        return json.loads(self.socket.recv(timeout=DEADLINE))

    def send(self, **message):
        self.socket.send(json.dumps(message))

    def until(self, *names):
        """Returns the events up to the first one of these names."""
        events = []
        while not events or events[-1]["event"] not in names:
            events.append(self.receive())
        return events

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def ask(url, message):
    """Returns what is published for a message, without what only the gateway says of it."""
    with Tab(url) as tab:
        tab.send(id="m", **message)
        queued, *events = tab.until(*TERMINAL)
    assert queued["event"] == "task_queued", [queued, *events]
    assert {event.pop("task_id") for event in events} == {queued["task_id"]}, events
    for event in events:
        event.pop("offset", None)
        event.pop("epoch", None)
    started = events.pop(0)
    assert started == {"event": "processing_started"}, started
    return events


class Gateway(GatewayProcess):
    """A gateway that is ready, with a config for all that it stands in front of."""

    def __init__(self, binary, config, stack):
        super().__init__(binary, config, stack)
        self.url = f"ws://{self.public}"


HEAD = """
[server]
listen = "127.0.0.1:0"
max_connections = 1000

[admin]
listen = "127.0.0.1:0"

[log]
format = "json"

[shutdown]
drain = "100ms"
"""


def route(name, url, options):
    """A route to one upstream. `{case}` of its path may be in the upstream's URL."""
    return f"""
[[route]]
path = "/ws/{name}/{{case}}/{{conversation}}"
channel = "{name}-{{case}}-{{conversation}}"
upstream = "{name}"
auth = ["anonymous"]

[route.limits]
messages_per_user = "1000/1s"
connects_per_user = "1000/1s"

[upstream.{name}]
kind = "http"
url = "{url}"
{options}"""
