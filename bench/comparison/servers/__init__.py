"""The measured servers. Each module describes some: how they are installed and started, and how they do each job.

A job is one of:

    publish         publications by HTTP calls, each to all clients of its channel
    batch           the same, with many publications in a call
    redis-batch     the same, where publications go through Redis to all nodes
    redis           publications by Redis PUBLISH
    list            messages of clients into a Redis list
    http            messages of clients to an HTTP upstream, which accepts them
    stream          the same, where the upstream answers with an event and its end
    raw             messages of clients to a WebSocket upstream, and its messages back
    token           handshakes with a single-use token that is stored in Redis
"""

CLIENT_MESSAGE = '{"message":"How is the weather on the other side of the gateway today?"}'
LIST = "bench_messages"


def response(body, kind="application/json", status="200 OK", headers=()):
    """Returns a whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Type: {kind}", f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines)


ACCEPTED = response("", status="202 Accepted")
EVENTS = 'data: {"event":"chunk","chunk":"~0123456789abcdef: a sentence."}\n\ndata: {"event":"complete"}\n\n'


def streamed():
    """Returns a response with one event and its end, in one chunk, as a server writes it that streams."""
    chunk = f"{len(EVENTS):x}\r\n{EVENTS}\r\n0\r\n\r\n"
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"


def upstream(port, *answers):
    """Describes an upstream that the generator plays: the beginning of a request's body, the response, and whether
    the request is a client's message."""
    answers = [{"prefix": prefix, "response": text, "message": message} for prefix, text, message in answers]
    return {"address": f"127.0.0.1:{port}", "answers": answers}


class Server:
    name = ""
    title = ""
    # What it does for each connection and publication, for the page.
    carries = ""
    # Takes part in only one scenario of the short form, because it is slow or there is no time.
    slow = False
    # Does only one job, and is left out of the tables of others.
    partial = False
    # The jobs that it cannot do, or that would not measure it, with the reason.
    unsupported: dict[str, str] = {}

    def install(self):
        """Installs the server, or raises `Failed` with the reason why it is absent."""

    def version(self):
        return ""

    def reason(self, job):
        """Returns why the server does not do this job, or None."""
        return "it measures no bound" if job == "bound" else self.unsupported.get(job)

    def start(self, world, processes, job, size):
        """Starts the server for a job, and returns its description for the generator. `size` has the scenario's
        counts, such as `connections`."""
        raise NotImplementedError


def everyone():
    """Returns all servers, in the order of the tables."""
    from . import anycable, centrifugo, channels, nchan, node, own, pushpin, tidegate, uws

    return [
        tidegate.Tidegate(),
        tidegate.EverythingOn(),
        own.Minimal(),
        centrifugo.Centrifugo(),
        anycable.AnyCable(),
        nchan.Nchan(),
        pushpin.Pushpin(),
        node.Node(),
        uws.Uws(),
        channels.Daphne(),
        channels.Uvicorn(),
        own.Proxy("nginx"),
        own.Proxy("haproxy"),
        own.Bound(1),
        own.Bound(4),
        own.Bound(16),
        own.RawRedis(),
    ]
