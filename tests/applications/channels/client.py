"""Signs in as a page does, and opens sockets with the session, with another origin, and with subprotocols."""

import http.cookiejar
import json
import os
import urllib.parse
import urllib.request

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

URL = os.environ["URL"]


def sign_in():
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    body = urllib.parse.urlencode({"name": "ana", "password": "secret of ana"}).encode()
    with opener.open(f"{URL}/sign-in/", body, timeout=60) as answer:
        assert answer.read() == b"welcome", answer.status
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


def open_socket(room="1", cookie="", origin=URL, subprotocols=None):
    headers = {"Cookie": cookie} if cookie else {}
    return connect(
        f"{URL.replace('http', 'ws', 1)}/ws/{room}/?page=2&page=%C3%A4", additional_headers=headers, origin=origin,
        subprotocols=subprotocols, open_timeout=60, ping_interval=None,
    )


def first(**options):
    """The subprotocol and the first message."""
    with open_socket(**options) as socket:
        return [socket.subprotocol, socket.recv(timeout=60)]


def refusal(**options):
    try:
        with open_socket(**options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def conversation(cookie):
    large = "ä" * 400_000
    with open_socket(cookie=cookie) as socket:
        socket.recv(timeout=60)
        echoed = []
        for message in ("text", b"\x00\xff", large, ["frag", "ments"]):
            socket.send(message)
            echoed.append(socket.recv(timeout=60))
        assert echoed == ["text", b"\x00\xff", large, "fragments"], [str(message)[:40] for message in echoed]
        socket.send("bye")
        try:
            return socket.recv(timeout=60)
        except ConnectionClosed as closed:
            return closed.rcvd.code


cookie = sign_in()
seen = {
    "signed in": first(cookie=cookie),
    "a stranger": first(),
    "subprotocols": first(cookie=cookie, subprotocols=["chat.v1", "chat.v2"]),
    "another origin": refusal(cookie=cookie, origin="http://other.example"),
    "a closed room": refusal(room="closed"),
    "closed": conversation(cookie),
}
expected = {
    "signed in": [None, "ana, page=2&page=%C3%A4"],
    "a stranger": [None, "nobody, page=2&page=%C3%A4"],
    "subprotocols": ["chat.v2", "ana, page=2&page=%C3%A4"],
    "another origin": 403,
    "a closed room": 403,
    "closed": 4321,
}
assert seen == expected, seen
print(json.dumps(seen))
