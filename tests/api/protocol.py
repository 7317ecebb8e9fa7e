"""The client protocol: checks real frames of a real gateway against docs/asyncapi.json."""

import contextlib
import http.server
import json
import pathlib
import shutil
import subprocess
import threading
import time

import jsonschema
from websockets.exceptions import ConnectionClosed

import world

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE.parents[1] / "docs" / "asyncapi.json"
PARSER = "@asyncapi/parser@3.6.6"
# The name of a message in the description: of a client's frame by its type, of the gateway's by its event.
OTHER_EVENT = "published"


class Protocol:
    """The description, and which of its messages have occurred."""

    def __init__(self):
        self.document = json.loads(FILE.read_text())
        self.occurred = set()
        self.by_field = {}
        for name, message in self.document["components"]["messages"].items():
            schema = self.schema(name)
            jsonschema.Draft7Validator.check_schema(schema)
            for field in ("type", "event"):
                found = self.resolve(schema).get("properties", {}).get(field, {}).get("const")
                if found:
                    self.by_field[field, found] = name
            for example in message["examples"]:
                self.validate(name, example["payload"])

    def schema(self, name):
        payload = self.document["components"]["messages"][name]["payload"]
        return {**payload, "components": self.document["components"]}

    def resolve(self, schema):
        return self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]

    def validate(self, name, value):
        try:
            jsonschema.Draft7Validator(self.schema(name)).validate(value)
        except jsonschema.ValidationError as wrong:
            raise SystemExit(f"{value} is no {name}: {wrong.message}") from None

    def check(self, field, value, default):
        """Checks the value against its schema, and returns the name of the message."""
        kind = value.get(field) if isinstance(value, dict) else None
        name = self.by_field.get((field, kind), default)
        self.validate(name, value)
        self.occurred.add(name)
        return name

    def closed(self, code, text):
        codes = self.document["channels"]["conversation"]["x-close-codes"]
        if not any((row["code"], row["text"]) == (code, text) for row in codes):
            raise SystemExit(f"closed with {code} {text!r}, which is not described")
        self.occurred.add(code)


class Client:
    """A client whose frames are all checked against the description."""

    def __init__(self, protocol, gateway, path, **query):
        self.protocol, self.socket = protocol, gateway.open(path, **query)

    def send(self, frame, is_valid=True):
        if is_valid:
            self.protocol.check("type", frame, "message")
        self.socket.send(json.dumps(frame))

    def next(self):
        frame = json.loads(self.socket.recv(timeout=30))
        return self.protocol.check("event", frame, OTHER_EVENT), frame

    def until(self, name):
        while True:
            found, frame = self.next()
            if found == name:
                return frame

    def closed(self):
        """Receives frames up to the close."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.next()
        close = self.socket.protocol.close_rcvd
        self.protocol.closed(close.code, close.reason)
        return close.code


# A reply in the format of Anthropic's API, with every kind of event.
AI_REPLY = [
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {
        "type": "server_tool_use", "id": "t1", "name": "web_search", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {
        "type": "input_json_delta", "partial_json": '{"query":"x"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {
        "type": "web_search_tool_result", "tool_use_id": "t1", "content": []}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "Yes."}},
    {"type": "content_block_stop", "index": 3},
    {"type": "of_a_later_version", "n": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


class Worker(http.server.BaseHTTPRequestHandler):
    """An upstream that streams two pieces and the end, pieces until it is cancelled, or the reply of an AI API."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if self.path == "/ai":
            for event in AI_REPLY:
                data = json.dumps(event)
                self.wfile.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
            self.close_connection = True
            return
        with contextlib.suppress(OSError):
            endless = body["message"] == "endless"
            for n in range(100_000 if endless else 2):
                self.wfile.write(f"data: piece {n}\n\n".encode())
                self.wfile.flush()
                if endless:
                    time.sleep(0.02)
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def worker():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Worker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def conversation(protocol, gateway):
    """Exchanges at least one of every message."""
    chat = "/ws/chat/42/"
    client = Client(protocol, gateway, chat, connection_token=gateway.token(user_id=1))
    connected = client.until("connected")
    client.until("join")
    client.send({"type": "ping"})
    client.until("pong")
    client.send({"message": "hello", "id": "m-1"})
    for name in ("taskQueued", "processingStarted", "chunk", "complete"):
        client.until(name)
    client.send({"message": "hello", "id": "m-1"})
    assert client.until("taskQueued")["duplicate"] is True
    client.send({"message": "endless"})
    task = client.until("taskQueued")["task_id"]
    client.send({"type": "cancel", "task_id": task})
    client.until("cancelled")
    client.send({"type": "resume", "since": connected["offset"], "epoch": connected["epoch"]})
    client.until("resumed")
    client.send({"type": "refresh", "connection_token": gateway.token(user_id=1)})
    assert client.until("refreshed")["expires_in"] is None
    for frame, code in [
        ([], "invalid_json"), ({"message": " "}, "empty_message"),
        ({"type": "cancel", "task_id": "none"}, "unknown_task"),
        ({"type": "refresh", "token": "x.y.z"}, "invalid_credentials"),
    ]:
        client.send(frame, is_valid=code in ("unknown_task", "invalid_credentials"))
        assert client.until("error")["code"] == code
    for data in ([1, 2], {"event": "tool_start", "tool": "search"}, {"no": "event"}):
        gateway.api("/v1/publish", {"channel": "chat_42", "data": data})
    client.until("wrapped")
    client.until("published")

    query = {"since": connected["offset"], "epoch": connected["epoch"]}
    other = Client(protocol, gateway, chat, **query)
    assert other.until("connected")["recovered"] is True
    other.socket.send(b"binary")
    assert other.closed() == 1003
    client.until("leave")

    token = gateway.token(user_id=2, session_expires_in=60)
    ends = Client(protocol, gateway, chat, connection_token=token)
    ends.until("tokenExpiringSoon")
    gateway.api("/v1/disconnect", {"user_id": 2})
    assert ends.closed() == 4001
    assert Client(protocol, gateway, chat, connection_token=token).closed() == 4001, "used up"

    plain = Client(protocol, gateway, "/ws/plain/a/")
    assert plain.until("connected")["name"] == "a"
    gateway.api("/v1/publish", {"channel": "plain_a", "data": "text"})
    assert plain.next() == (OTHER_EVENT, "text")
    plain.send({"message": "hello"})
    assert plain.until("error")["code"] == "forbidden"
    ai = Client(protocol, gateway, "/ws/ai/")
    ai.until("connected")
    ai.send({"message": "hello"})
    for name in ("reasoning", "toolCall", "toolResult", "chunk", "native", "usage"):
        ai.until(name)
    assert ai.until("complete")["finish_reason"] == "stop"
    stamped = Client(protocol, gateway, "/ws/stamped/")
    assert "timestamp" in stamped.until("connected")

    gateway.call("POST", "/v1/drain")
    client.until("goingAway")
    assert client.closed() == 1012


def parse(cache):
    """Runs AsyncAPI's own parser, if npm is installed."""
    if not shutil.which("npm"):
        print("SKIPPED: there is no npm, so the file was NOT read by AsyncAPI's parser")
        return
    folder = pathlib.Path(cache).absolute() / "asyncapi"
    if not (folder / "node_modules" / "@asyncapi" / "parser").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder]
        subprocess.run([*install, PARSER], check=True)
    subprocess.run(["node", HERE / "asyncapi.mjs", FILE], check=True, cwd=folder)


def run(binary, kind, redis):
    protocol = Protocol()
    with worker() as url:
        upstream = f'[upstream.worker]\nkind = "http"\nurl = "{url}"\n'
        stamped = '[[route]]\npath = "/ws/stamped/"\nchannel = "stamped"\nauth = ["anonymous"]\n'
        ai = '[[route]]\npath = "/ws/ai/"\nchannel = "ai"\nauth = ["anonymous"]\nupstream = "ai"\n'
        api = f'[upstream.ai]\nkind = "http"\nurl = "{url}ai"\ndialect = "anthropic"\n'
        more = f"{stamped}timestamps = true\n{ai}{upstream}{api}"
        gateway = world.Gateway(binary, kind, redis, upstream='upstream = "worker"', more=more)
        with gateway:
            conversation(protocol, gateway)
    messages = set(protocol.document["components"]["messages"])
    missing = messages - protocol.occurred
    assert not missing, f"described, and never seen: {missing}"
    codes = sorted(code for code in protocol.occurred if isinstance(code, int))
    print(f"{len(messages)} messages, closes {codes}")
