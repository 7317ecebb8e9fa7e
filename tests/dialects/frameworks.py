"""Web servers and frameworks that stream a reply: it ends truly, and one that fails or is killed in the middle is seen.

Each program of `frameworks/` streams the same reply in the form of Chat Completions. The gateway reads it as such, and
again with the dialect `events`, for which only the end of the body counts, or an event that ends the reply.
"""

import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import conversation
import processes

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.executable).parent

HI = {"event": "chunk", "chunk": "Hi"}
COMPLETE = {"event": "complete", "finish_reason": "stop"}
LOST = {"event": "error", "code": "worker_lost", "error": "the reply broke off"}


@dataclass
class Framework:
    """`PORT` in the command is replaced; Node's programs read it from their environment."""

    name: str
    command: str
    path: str = "/stream"
    is_proxied: bool = False
    # What the end of the body says of a reply that fails.
    failure: str = "error"


GUNICORN = "gunicorn --bind 127.0.0.1:PORT --worker-class"
ALL = [
    Framework("fastapi-uvicorn", "uvicorn asgi:app --port PORT --log-level critical"),
    Framework("sse-starlette", "uvicorn asgi:app --port PORT --log-level critical", "/sse"),
    Framework("fastapi-hypercorn", "hypercorn asgi:app --bind 127.0.0.1:PORT --log-level critical"),
    Framework("fastapi-granian", "granian --interface asgi --port PORT --no-log asgi:app"),
    Framework("django-uvicorn", "uvicorn django_app:asgi --port PORT --log-level critical --lifespan off"),
    Framework("django-daphne", "daphne --port PORT --verbosity 0 django_app:asgi"),
    Framework("django-gunicorn", f"{GUNICORN} gthread django_app:wsgi", "/sync"),
    Framework("flask-gthread", f"{GUNICORN} gthread flask_app:app"),
    Framework("flask-gevent", f"{GUNICORN} gevent flask_app:app"),
    Framework("flask-waitress", "waitress-serve --listen 127.0.0.1:PORT flask_app:app"),
    Framework("express", "node express.mjs"),
    Framework("fastify", "node fastify.mjs"),
    # Its helper ends the body of a stream that fails.
    Framework("hono", "node hono.mjs", failure="complete"),
    # nginx asks by HTTP/1.0, where a body ends with its connection, and passes that on as an end.
    Framework("nginx", f"{GUNICORN} gthread flask_app:app", is_proxied=True, failure="complete"),
]
# A reply that fails leaves its stream open, so that only its silence ends it.
NEVER_ENDS = ["django-daphne"]
SILENT = {"event": "error", "code": "worker_lost", "error": "the reply fell silent"}


class Frameworks:
    def __init__(self, folder, stack, node, words):
        self.folder = shutil.copytree(HERE / "frameworks", folder / "frameworks")
        self.stack, self.ports = stack, {}
        if node.is_dir():
            (self.folder / "node_modules").symlink_to(node / "node_modules")
        self.chosen = [
            framework for framework in ALL
            if (not words or any(word in framework.name for word in words))
            and ("node" not in framework.command or node.is_dir())
            and (not framework.is_proxied or shutil.which("nginx"))
        ]

    def start(self):
        started = [(framework, self.start_one(framework)) for framework in self.chosen]
        for framework, waits in started:
            for process, port in waits:
                process.wait_for_port(port)

    def start_one(self, framework):
        port = processes.free_port()
        program, *arguments = framework.command.replace("PORT", str(port)).split()
        if program != "node":
            program = PROGRAMS / program
        process = self.stack.start(framework.name, [program, *arguments], self.folder, PORT=str(port))
        waits = [(process, port)]
        self.ports[framework.name] = port
        if framework.is_proxied:
            self.ports[framework.name] = front = processes.free_port()
            place = self.folder / framework.name
            place.mkdir()
            config = (HERE / "frameworks" / "nginx.conf").read_text()
            (place / "nginx.conf").write_text(config.replace("PORT", str(front)).replace("BEHIND", str(port)))
            nginx = self.stack.start("nginx-proxy", ["nginx", "-p", place, "-c", "nginx.conf", "-e", "stderr"], place)
            waits.append((nginx, front))
        return waits

    def config(self):
        text = ""
        for framework in self.chosen:
            url = f"http://127.0.0.1:{self.ports[framework.name]}{framework.path}/{{case}}"
            idle = 'stream_idle_timeout = "1s"\n' if framework.name in NEVER_ENDS else ""
            text += conversation.route(framework.name, url, f'dialect = "openai-chat"\n{idle}')
            text += conversation.route(f"{framework.name}-body", url, idle)
            text += conversation.route(f"{framework.name}-event", url, f'end = "event"\n{idle}')
        return text

    def run(self, gateway, threads):
        """Returns how many fail."""
        done = threads.map(lambda framework: self.check(gateway, framework), self.chosen)
        return list(done).count(False)

    def check(self, gateway, framework):
        """The server is killed last."""
        def ask(route, case):
            return conversation.ask(f"{gateway.url}/ws/{route}/{case}/{uuid.uuid4()}", {"message": "hi"})

        own, body, event = framework.name, f"{framework.name}-body", f"{framework.name}-event"
        failed = [HI, SILENT if own in NEVER_ENDS else LOST]
        wrong = []

        def expect(what, seen, expected):
            if seen != expected:
                wrong.append((what, seen))

        try:
            expect("end", ask(own, "end"), [HI, COMPLETE])
            expect("end by the body", ask(body, "end")[-1]["event"], "complete")
            expect("end by an event", ask(event, "end")[-1]["event"], "complete")
            expect("failure", ask(own, "raise"), failed)
            expect("failure by the body", ask(body, "raise")[-1]["event"], framework.failure)
            expect("failure by an event", ask(event, "raise")[-1], failed[-1])
            expect("kill", ask(own, "kill"), [HI, LOST])
        except Exception as error:
            wrong.append(("", repr(error)))
        print(f"{'FAILED' if wrong else 'ok'}: {framework.name} {wrong or ''}", flush=True)
        return not wrong
