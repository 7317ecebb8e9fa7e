"""Pushpin from Debian, in front of a small backend, which the load generator plays: it subscribes each socket by GRIP."""

import time
import urllib.error
import urllib.request

from ..install import ROOT, debian, libraries, run
from ..machine import START_DEADLINE, Failed, free_port
from . import CLIENT_MESSAGE, Server, response, upstream

CONFIG = """
[global]
include={root}/usr/lib/pushpin/internal.conf
libdir={root}/usr/lib/pushpin
rundir={directory}
ipc_prefix=bench-
port_offset=0

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={directory}
log_level=2
client_buffer_size=8192
client_maxconn=50000
condure_bin={root}/usr/bin/condure
zurl_bin={root}/usr/bin/zurl

[proxy]
routesfile={directory}/routes
debug=false
zurl_out_specs=ipc://{directory}/bench-zurl-in
zurl_out_stream_specs=ipc://{directory}/bench-zurl-in-stream
zurl_in_specs=ipc://{directory}/bench-zurl-out

[handler]
push_in_spec=tcp://127.0.0.1:{push}
push_in_http_addr=127.0.0.1
push_in_http_port={control}
command_spec=tcp://127.0.0.1:{command}
message_rate=1000000
message_hwm=1000000
"""
EACH = '{"channel":"{channel}","formats":{"ws-message":{"content":{text}}}}'
# The generator's channel names have the same length.
NAME = 16
GRIP = ["Sec-WebSocket-Extensions: grip"]


def events(*texts, opened=False):
    """Returns a body of WebSocket events. `{channel}` stands for a channel's name."""
    body = "OPEN\r\n" if opened else ""
    for text in texts:
        length = len(text) + text.count("{channel}") * (NAME - len("{channel}"))
        body += f"TEXT {length:x}\r\n{text}\r\n"
    return body


def answer(body, headers=()):
    text = response(body, "application/websocket-events", headers=headers)
    length = len(body) + body.count("{channel}") * (NAME - len("{channel}"))
    return text.replace(f"Content-Length: {len(body)}", f"Content-Length: {length}")


def wait_until_connected(port):
    """Its processes find each other in the background. When they have, a request is answered, with an error as long
    as there is no backend."""
    until = time.monotonic() + START_DEADLINE
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise Failed("pushpin does not answer")


class Pushpin(Server):
    name = "pushpin"
    title = "Pushpin"
    slow = True
    carries = "no history for WebSockets; a backend decides by HTTP what each socket subscribes to"
    unsupported = {
        "redis-batch": "its nodes share nothing",
        "redis": "it does not read Redis",
        "list": "it has no relay to Redis",
        "raw": "its upstream speaks HTTP",
        "token": "it has no tokens of its own",
    }

    def install(self):
        debian("pushpin")
        run([str(ROOT / "usr/bin/pushpin"), "--version"], env=libraries())

    def version(self):
        return run([str(ROOT / "usr/bin/pushpin"), "--version"], env=libraries()).split()[-1]

    def start(self, world, processes, job, size):
        port, backend, control = free_port(), free_port(), free_port()
        directory = processes.directory
        names = {"root": ROOT, "directory": directory, "port": port, "control": control}
        config = CONFIG.format(**names, push=free_port(), command=free_port())
        (directory / "pushpin.conf").write_text(config)
        (directory / "routes").write_text(f"* 127.0.0.1:{backend},over_http\n")
        command = [ROOT / "usr/bin/pushpin", f"--config={directory}/pushpin.conf"]
        processes.start(command, [port, control], env=libraries())
        wait_until_connected(port)
        subscribe = 'c:{"type":"subscribe","channel":"{channel}"}'
        told = '{"event":"task_queued"}' if job == "http" else '{"event":"chunk","chunk":"~0123456789abcdef"}'
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/ws/{channel}",
            "http": {
                "address": f"127.0.0.1:{control}",
                "path": "/publish/",
                "body": '{"items":[' + EACH + "]}",
                "batch": ['{"items":[', EACH, ",", "]}"],
            },
            "message": {"text": CLIENT_MESSAGE, "frames": 1},
            "upstream": upstream(
                backend,
                ("OPEN", answer(events(subscribe, opened=True), GRIP + ["Connection: keep-alive"]), False),
                ("TEXT", answer(events("m:" + told)), True),
                ("", answer(""), False),
            ),
        }
