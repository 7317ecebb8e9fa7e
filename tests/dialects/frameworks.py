"""Web servers and frameworks that stream a reply: it ends truly, and one that fails or is killed in the middle is seen.

Each program of `frameworks/` streams the same reply in the form of Chat Completions. The gateway reads it as such, and
again with the dialect `events`, for which only the end of the body counts, or an event that ends the reply.
"""

import shutil
import subprocess
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path

import conversation
import packages
import processes

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.executable).parent

HI = {"event": "chunk", "chunk": "Hi"}
COMPLETE = {"event": "complete", "finish_reason": "stop"}
LOST = {"event": "error", "code": "worker_lost", "error": "the reply broke off"}


@dataclass
class Framework:
    """`PORT` in the command is replaced; some programs read it from their environment."""

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
    Framework("go", "BUILT/go/server"),
    Framework("jdk", "java Jdk.java"),
    # Leaving a `try` with a resource ends the body of a stream that fails.
    Framework("jdk-resource", "java Jdk.java", "/resource", failure="complete"),
    # nginx asks by HTTP/1.0, where a body ends with its connection, and passes that on as an end.
    Framework("nginx", f"{GUNICORN} gthread flask_app:app", is_proxied=True, failure="complete"),
]
# Those that take long to install.
LARGE = [Framework("spring-webflux", "java -cp BUILT/spring/*:BUILT/spring app.Server")]
# A reply that fails leaves its stream open, so that only its silence ends it.
NEVER_ENDS = ["django-daphne"]
# A server answers with 500, closes its connection, never answers, or has already sent the head of its answer.
REFUSED = ("upstream_unavailable", "worker_lost")
SILENT = {"event": "error", "code": "worker_lost", "error": "the reply fell silent"}


def go(folder):
    command = ["go", "build", "-o", folder / "server", HERE / "frameworks" / "server.go"]
    subprocess.run(command, check=True)


def spring(folder):
    """The jars, and the program's own classes."""
    sources = HERE / "frameworks" / "spring"
    # Maven writes into the folder of its project.
    pom = shutil.copy(sources / "pom.xml", folder)
    copy = ["mvn", "--batch-mode", "--quiet", "--file", pom, "dependency:copy-dependencies"]
    subprocess.run([*copy, f"-DoutputDirectory={folder}"], check=True)
    subprocess.run(["javac", "-cp", f"{folder}/*", "-d", folder, sources / "app" / "Server.java"], check=True)


# By the folder in the cache: the programs that it needs, the sources, and what builds it.
BUILT = {
    "go": (["go"], ["server.go"], go),
    "spring": (["mvn", "javac"], ["spring/pom.xml", "spring/app/Server.java"], spring),
}


class Frameworks:
    def __init__(self, folder, stack, cache, words, with_large):
        self.folder = shutil.copytree(HERE / "frameworks", folder / "frameworks")
        self.stack, self.cache, self.ports, self.processes = stack, cache, {}, {}
        node = cache / "dialects-node"
        if node.is_dir():
            (self.folder / "node_modules").symlink_to(node / "node_modules")
        chosen = [
            framework for framework in [*ALL, *(LARGE if with_large else [])]
            if not words or any(word in framework.name for word in words)
        ]
        self.chosen = [framework for framework in chosen if self.is_installed(framework)]
        for framework in chosen:
            if framework not in self.chosen:
                print(f"SKIPPED: {framework.name}, because a program is not installed: NOT tested", flush=True)

    def is_installed(self, framework):
        """Builds what must be built first."""
        if framework.is_proxied and not shutil.which("nginx"):
            return False
        if framework.command.startswith("node "):
            return (self.folder / "node_modules").is_dir()
        if framework.command.startswith("java ") and not shutil.which("javac"):
            return False
        for name, (programs, sources, build) in BUILT.items():
            if f"BUILT/{name}" in framework.command:
                if not all(map(shutil.which, programs)):
                    return False
                text = "".join((HERE / "frameworks" / source).read_text() for source in sources)
                packages.installed(self.cache / f"dialects-{name}", text, build)
        return True

    def start(self):
        started = [(framework, self.start_one(framework)) for framework in self.chosen]
        for framework, waits in started:
            for process, port in waits:
                process.wait_for_port(port)

    def start_one(self, framework):
        port = processes.free_port()
        command = framework.command.replace("PORT", str(port)).replace("BUILT/", f"{self.cache}/dialects-")
        program, *arguments = command.split()
        if (PROGRAMS / program).is_file():
            program = PROGRAMS / program
        variables = {"PORT": str(port), "SERVER_PORT": str(port), "SERVER_ADDRESS": "127.0.0.1"}
        process = self.stack.start(framework.name, [program, *arguments], self.folder, **variables)
        self.processes[framework.name] = process
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
            idle = 'stream_idle_timeout = "1s"\ntimeout = "1s"\n' if framework.name in NEVER_ENDS else ""
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
            expect("early failure", self.failure_code(gateway, own) in REFUSED, True)
            self.cancel(gateway, own)
            expect("kill", ask(own, "kill"), [HI, LOST])
        except Exception:
            wrong.append(("", traceback.format_exc()))
        print(f"{'FAILED' if wrong else 'ok'}: {framework.name} {wrong or ''}", flush=True)
        return not wrong

    def cancel(self, gateway, name):
        """The server sees that its client has gone after a reply is cancelled."""
        with conversation.Tab(f"{gateway.url}/ws/{name}/hang/{uuid.uuid4()}") as tab:
            tab.send(id="m", message="hi")
            task = tab.until("chunk")[0]["task_id"]
            tab.send(type="cancel", task_id=task)
            assert tab.until(*conversation.TERMINAL)[-1]["event"] == "cancelled"
        process = self.processes[name]
        process.until(lambda: "closed" in process.read_log().splitlines(), "closed connection")

    def failure_code(self, gateway, name):
        """Returns the code of a reply that fails before its first event."""
        with conversation.Tab(f"{gateway.url}/ws/{name}/early/{uuid.uuid4()}") as tab:
            tab.send(message="hi")
            return tab.until(*conversation.TERMINAL)[-1].get("code")
