"""Chats with `tidegate demo` through the `websockets` library: chat.py BINARY"""

import json
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import demo as demos

DEADLINE = demos.DEADLINE


def recv(socket):
    return json.loads(socket.recv(timeout=DEADLINE))


def close_code(url, **options):
    """Returns the code that the gateway closes this connection with before it sends anything."""
    with connect(url, open_timeout=DEADLINE, **options) as socket:
        try:
            raise AssertionError(f"not closed, but: {socket.recv(timeout=DEADLINE)}")
        except ConnectionClosed as closed:
            return closed.rcvd.code


def a_reply_streams(demo):
    protocols = ["tidegate.v1", f"tidegate.token.{demo.connection_token()}"]
    url = f"{demo.socket}/ws/chat/py/"
    with connect(url, origin=demo.origin, subprotocols=protocols) as socket:
        assert socket.subprotocol == "tidegate.v1", socket.subprotocol
        connected = recv(socket)
        assert connected["event"] == "connected", connected
        assert connected["conversation_id"] == "py", connected

        socket.send(json.dumps({"type": "ping"}))
        assert recv(socket) == {"event": "pong"}

        socket.send(json.dumps({"message": "hello there", "id": "m-1"}))
        queued, started = recv(socket), recv(socket)
        assert (queued["event"], queued["id"]) == ("task_queued", "m-1"), queued
        assert started["event"] == "processing_started", started
        assert started["task_id"] == queued["task_id"], started
        text, chunks = "", 0
        while (frame := recv(socket))["event"] != "complete":
            assert frame["task_id"] == queued["task_id"], frame
            if frame["event"] == "chunk":
                text, chunks = text + frame["chunk"], chunks + 1
        assert chunks > 10, chunks
        assert text.startswith("You said “hello there”, which is 2 words."), text

        socket.send("not json")
        assert recv(socket)["code"] == "invalid_json"


def a_second_tab_sees_the_reply(demo):
    def tab():
        url = f"{demo.socket}/ws/chat/two-tabs/?connection_token={demo.connection_token()}"
        return connect(url, origin=demo.origin)

    with tab() as one, tab() as other:
        assert recv(one)["event"] == recv(other)["event"] == "connected"
        one.send(json.dumps({"message": "hello"}))
        events = [recv(other)["event"]]
        while events[-1] != "complete":
            events.append(recv(other)["event"])
        assert events[0] == "processing_started" and "chunk" in events, events
        assert "task_queued" not in events, events


def refusals_have_their_code(demo):
    url = f"{demo.socket}/ws/chat/py/"
    token = demo.connection_token()
    wrong = close_code(f"{url}?connection_token={'A' * 43}", origin=demo.origin)
    assert wrong == 4001, wrong
    # Twice, since the refusal because of the origin must not consume the token.
    elsewhere = close_code(f"{url}?connection_token={token}", origin="https://evil.example")
    assert elsewhere == 4003, elsewhere
    with connect(f"{url}?connection_token={token}", origin=demo.origin) as socket:
        assert recv(socket)["event"] == "connected"
    again = close_code(f"{url}?connection_token={token}", origin=demo.origin)
    assert again == 4001, again
    nothing = close_code(url, origin=demo.origin)
    assert nothing == 4001, nothing


def main():
    [binary] = sys.argv[1:]
    with demos.running(binary) as demo:
        for test in (a_reply_streams, a_second_tab_sees_the_reply, refusals_have_their_code):
            test(demo)
            print(f"ok: {test.__name__}")
        assert "tidegate_" in demo.metrics()
    print("ok: stops with exit code 0")


main()
