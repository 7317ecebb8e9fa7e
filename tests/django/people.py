"""Users of the chat, who act as their browsers do: cookies, connection tokens, one socket for each tab."""

import http.cookies
import json
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

DEADLINE = 20
PASSWORD = "correct horse"
TOKEN_PATH = "/api/v1/auth/ws-connection-token/"


def until(condition, what, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)
    return found


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers = status, headers
        try:
            self.json = json.loads(body)
        except ValueError:
            self.json = None

    def __repr__(self):
        return f"{self.status} {self.json}"


class Person:
    """One signed-in user. `origin` is that of the page, wherever the socket connects."""

    path, cookie_name, connection_id = "/ws/chat", "access_token", "chat-{}-{}"

    def __init__(self, name, origin):
        self.name, self.origin, self.cookies = name, origin, {}

    def cookie_header(self):
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def request(self, url, body=None):
        headers = {"Content-Type": "application/json", "Origin": self.origin, "Cookie": self.cookie_header()}
        headers["X-CSRFToken"] = self.cookies.get("csrftoken", "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            answer = urllib.request.urlopen(request, timeout=DEADLINE)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            for header in answer.headers.get_all("Set-Cookie", []):
                for name, morsel in http.cookies.SimpleCookie(header).items():
                    self.cookies[name] = morsel.value
            return Answer(answer.status, answer.headers, answer.read())

    def sign_in(self, url):
        answer = self.request(f"{url}/api/v1/auth/login/", {"username": self.name, "password": PASSWORD})
        assert answer.status == 200, answer
        self.id = answer.json["user_id"]
        return self

    def token(self, url, conversation, connection_id=None):
        name = connection_id or self.connection_id.format(conversation, time.time_ns() // 1000000)
        answer = self.request(f"{url}{TOKEN_PATH}", {"connection_id": name})
        assert answer.status == 200 and answer.json["expires_in"] == 60, answer
        return answer.json["connection_token"]

    @contextmanager
    def chat(self, url, conversation, **query):
        """Opens a socket, with a newly fetched token unless `query` has other credentials."""
        if not query.keys() & {"token", "connection_token", "cookie"}:
            query["connection_token"] = self.token(url, conversation)
        with self.socket(url, conversation, **query) as socket:
            yield Chat(socket)

    def socket(self, url, conversation, origin=None, cookie=None, sock=None, max_queue=None, **query):
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return connect(
            f"{url.replace('http', 'ws', 1)}{self.path}/{conversation}/?{text}",
            origin=origin or self.origin,
            additional_headers={"Cookie": f"{self.cookie_name}={cookie}"} if cookie else None,
            open_timeout=DEADLINE,
            max_size=None,
            max_queue=max_queue,
            compression=None,
            ping_interval=None,
            sock=sock,
        )

    def refusal(self, url, conversation, **query):
        """Returns how the handshake is refused: an HTTP status, or the code of an immediate close."""
        try:
            with self.socket(url, conversation, **query) as socket:
                while True:
                    frame = json.loads(socket.recv(timeout=DEADLINE))
                    assert frame["event"] == "error", f"not refused: {frame}"
        except InvalidStatus as refused:
            return refused.response.status_code
        except ConnectionClosed as closed:
            return closed.rcvd.code


class Chat:
    """An open socket that receives JSON."""

    def __init__(self, socket):
        self.socket = socket
        self.connected = self.receive()
        assert self.connected["event"] == "connected", self.connected

    def send(self, frame):
        self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    def receive(self, deadline=DEADLINE):
        return json.loads(self.socket.recv(timeout=deadline))

    def send_and_receive(self, frame):
        self.send(frame)
        return self.receive()

    def send_message(self, message, **fields):
        """Sends a message, and returns the answer: task_queued, or an error."""
        return self.send_and_receive({"message": message, **fields})

    def queue(self, message, **fields):
        answer = self.send_message(message, **fields)
        assert answer["event"] == "task_queued", answer
        return answer

    def reply(self, *last):
        """Returns the events up to the one that ends the reply."""
        frames = [self.receive()]
        while frames[-1]["event"] not in (last or ("completed", "complete", "error")):
            frames.append(self.receive())
        return frames

    def expect_nothing(self):
        """Expects that nothing else arrives before a pong."""
        pong = self.send_and_receive({"type": "ping"})
        assert pong["event"] == "pong", pong


def events(frames):
    return [frame["event"] for frame in frames]


def text(frames):
    return "".join(frame["chunk"] for frame in frames if frame["event"] == "chunk")
