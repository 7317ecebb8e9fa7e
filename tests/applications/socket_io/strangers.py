"""Whom the gateway keeps from the application: who has not signed in, other pages, and more sockets than a user may have.

Runs only against the gateway, after the client.
"""

import contextlib
import os
import urllib.error
import urllib.request

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

URL, COOKIE = os.environ["URL"], f"access_token={os.environ['TOKEN']}"
SOCKETS_OF_A_USER = 20


def get(path, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, headers=headers), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def open_socket(cookie=COOKIE, origin=URL):
    return connect(
        f"{URL.replace('http', 'ws', 1)}/socket.io/?EIO=4&transport=websocket", origin=origin,
        additional_headers={"Cookie": cookie} if cookie else {}, open_timeout=60, ping_interval=None,
    )


def refusal(**options):
    try:
        with open_socket(**options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


seen = {
    "page": get("/"),
    "polling": get("/socket.io/?EIO=4&transport=polling"),
    "page of a user": get("/", Cookie=COOKIE),
    "socket": refusal(cookie=""),
    "socket with a wrong cookie": refusal(cookie=COOKIE[:-4]),
    "another page": refusal(origin="http://other.example"),
}
assert seen == {
    "page": 401, "polling": 401, "page of a user": 200,
    "socket": 401, "socket with a wrong cookie": 401, "another page": 403,
}, seen
with contextlib.ExitStack() as open_sockets:
    for _ in range(SOCKETS_OF_A_USER):
        socket = open_sockets.enter_context(open_socket())
        assert socket.recv(timeout=60).startswith("0{"), "the application does not answer"
    assert (status := refusal()) == 429, status
