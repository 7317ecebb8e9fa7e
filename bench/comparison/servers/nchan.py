"""nchan, the nginx module, from Debian: nginx with one worker process."""

import shutil

from ..install import ROOT, debian, run
from ..machine import Failed, free_port
from . import Server

CONFIG = """
load_module {module};
worker_processes 1;
daemon off;
error_log stderr warn;
pid {directory}/nginx.pid;
events {{ worker_connections 60000; }}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    nchan_shared_memory_size 512M;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber websocket;
            nchan_subscriber_first_message newest;
            nchan_channel_id $1;
        }}
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
        }}
    }}
}}
"""


class Nchan(Server):
    name = "nchan"
    title = "nchan"
    carries = "its default buffer of 10 messages a channel, with resume by message id"
    unsupported = {
        "batch": "a call publishes one message",
        "redis-batch": "a call publishes one message",
        "redis": "its Redis keys and scripts are its own, so others cannot `PUBLISH`",
        "list": "it has no relay to Redis",
        "http": "a client's message goes to an upstream only as a publication",
        "stream": "a client's message goes to an upstream only as a publication",
        "raw": "it has no WebSocket upstreams",
        "token": "it has no tokens of its own",
    }

    def install(self):
        if not shutil.which("nginx"):
            raise Failed("nginx is not installed")
        debian("libnginx-mod-nchan")

    def version(self):
        return run(["apt-cache", "policy", "libnginx-mod-nchan"]).split("Candidate: ")[1].split()[0]

    def start(self, world, processes, job, size):
        port = free_port()
        module = ROOT / "usr/lib/nginx/modules/ngx_nchan_module.so"
        config = processes.directory / "nginx.conf"
        config.write_text(CONFIG.format(module=module, port=port, directory=processes.directory))
        command = [shutil.which("nginx"), "-e", "stderr", "-p", processes.directory, "-c", config]
        # A master process and its worker.
        processes.start(command, [port], family=2)
        return {
            "servers": [f"127.0.0.1:{port}"],
            "path": "/sub/{channel}",
            "http": {"address": f"127.0.0.1:{port}", "path": "/pub/{channel}", "body": "{data}"},
        }
