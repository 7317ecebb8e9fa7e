"""The service on uWebSockets, by socketify: topics of the library, and POST /publish/{channel}, which delivers the
body, or each line of it."""

import os

from socketify import App, OpCode

app = App()


def upgrade(response, request, context):
    channel = request.get_url().rsplit("/", 1)[-1]
    key = request.get_header("sec-websocket-key")
    protocol = request.get_header("sec-websocket-protocol")
    extensions = request.get_header("sec-websocket-extensions")
    response.upgrade(key, protocol, extensions, context, channel)


def opened(socket):
    socket.subscribe(socket.get_user_data())


def publish(response, request):
    channel = request.get_url().rsplit("/", 1)[-1]
    pieces = []

    def on_data(response, piece, is_last, *_):
        pieces.append(bytes(piece))
        if is_last:
            for line in b"".join(pieces).split(b"\n"):
                app.publish(channel, line, OpCode.TEXT, False)
            response.end("{}")

    response.on_data(on_data)


app.ws(
    "/ws/*",
    {
        "idle_timeout": 0,
        "max_backpressure": 64 << 20,
        "upgrade": upgrade,
        "open": opened,
        "message": lambda *_: None,
    },
)
app.post("/publish/*", publish)
app.listen(int(os.environ["PORT"]))
app.run()
