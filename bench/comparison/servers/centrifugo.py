"""Centrifugo from the Go module proxy."""

import json
import subprocess

from ..install import GO, go
from ..machine import free_port
from . import Server, response, upstream

EACH = '{"publish":{"channel":"{channel}","data":{data}}}'


class Centrifugo(Server):
    name = "centrifugo"
    title = "Centrifugo"
    carries = "no history (its default); connection and subscription commands; JSON protocol"
    unsupported = {
        "redis": "its format in Redis is its own, so others cannot `PUBLISH`",
        "list": "it has no relay to Redis",
        "raw": "it has no WebSocket upstreams",
        "token": "its tokens are JWTs, which Redis is not asked about",
    }

    def install(self):
        go("github.com/centrifugal/centrifugo/v6", "centrifugo")

    def version(self):
        done = subprocess.run(["/usr/bin/env", "go", "version", "-m", str(GO / "centrifugo")], capture_output=True, text=True)
        if done.returncode:
            command = ["/usr/local/go/bin/go", "version", "-m", str(GO / "centrifugo")]
            done = subprocess.run(command, capture_output=True, text=True)
        modules = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("mod")]
        return modules[0][2].removeprefix("v") if modules else "unknown"

    def start(self, world, processes, job, size):
        port, backend = free_port(), free_port()
        config = {
            "http_server": {"address": "127.0.0.1", "port": port},
            "log": {"level": "error"},
            "client": {
                "insecure": True,
                "allowed_origins": ["*"],
                "ping_interval": "600s",
                "pong_timeout": "10s",
                "queue_max_size": 64 << 20,
            },
            "http_api": {"insecure": True},
            "channel": {"without_namespace": {"allow_subscribe_for_client": True}},
            "rpc": {
                "proxy": {"endpoint": f"http://127.0.0.1:{backend}/messages", "timeout": "10s"},
                "without_namespace": {"proxy_enabled": True},
            },
        }
        if job == "redis-batch":
            config["engine"] = {"type": "redis", "redis": {"address": f"redis://{world.redis_address}"}}
        file = processes.directory / "config.json"
        file.write_text(json.dumps(config))
        processes.start([GO / "centrifugo", "-c", file], [port], env={"GOMAXPROCS": "1"})
        relays = job in ("http", "stream")
        hello = '{"id":1,"connect":{}}' + ("" if relays else '\n{"id":2,"subscribe":{"channel":"{channel}"}}')
        data = '{"event":"chunk","chunk":"~0123456789abcdef: a sentence."}' if job == "stream" else "{}"
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/connection/websocket",
            "hello": [hello],
            "greeting": 1,
            "http": {
                "address": f"127.0.0.1:{port}",
                "path": "/api/publish",
                "body": '{"channel":"{channel}","data":{data}}',
                "batch": ['{"commands":[', EACH, ",", "]}"],
                "batch_path": "/api/batch",
            },
            "message": {"text": '{"id":3,"rpc":{"method":"m","data":{"message":"How is the weather?"}}}', "frames": 1},
            "upstream": upstream(backend, ("{", response('{"result":{"data":' + data + "}}"), True)) if relays else None,
        }
