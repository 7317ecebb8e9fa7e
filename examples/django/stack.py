"""Starts the example's processes, each on a free local port, and stops them in order.

`run`, the tests and the benchmark use it. It needs only the standard library; the processes run in the virtual
environment that `environment()` creates.
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from free_port import free_port  # noqa: E402

REQUIREMENTS = HERE / "requirements.txt"
PRESET = HERE / "gateway.toml"
START_DEADLINE = 60
STOP_DEADLINE = 20


def environment(directory, *more):
    """Creates a virtual environment with the requirements and `more`, unless it exists, and returns its Python."""
    wanted = hashlib.sha256("\n".join([REQUIREMENTS.read_text(), *more]).encode()).hexdigest()
    python, mark = directory / "bin" / "python", directory / "installed"
    if not (python.exists() and mark.exists() and mark.read_text() == wanted):
        print(f"Installing the example's requirements in {directory}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", REQUIREMENTS, *more], check=True)
        mark.write_text(wanted)
    return python


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A process in its own session, so that Ctrl-C reaches only the parent, which stops all processes."""

    def __init__(self, name, command, log, cwd=HERE, **variables):
        self.name, self.log = name, log
        self.output = open(log, "wb")
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self.popen.pid

    def read_log(self):
        return self.log.read_text(errors="replace")

    def until(self, ready, deadline=START_DEADLINE):
        """Waits until `ready` returns a true value, and returns it. Exits the program after the deadline."""
        end = time.monotonic() + deadline
        while not (found := ready()):
            ended = self.popen.poll() is not None
            if ended or time.monotonic() > end:
                state = f"ended with {self.popen.returncode}" if ended else "is not ready in time"
                raise SystemExit(f"{self.name} {state}. Its log:\n{self.read_log()[-4000:]}")
            time.sleep(0.02)
        return found

    def stop(self, how=signal.SIGTERM):
        """Stops the process and returns its exit code. After the deadline, kills it with its children."""
        self.signal(how)
        try:
            self.popen.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill_group()
        self.output.close()
        return self.popen.wait()

    def signal(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def kill_group(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()


class Stack:
    """Redis, Django, Celery workers and the gateway. `settings` are environment variables of backend/settings.py; `home`
    is the directory with manage.py."""

    def __init__(self, python, directory, redis_url=None, port=None, home=HERE, **settings):
        self.home = Path(home)
        self.python, self.directory = Path(python), Path(directory)
        self.processes = []
        self.port, self.django_port = port or free_port(), free_port()
        self.redis_url = redis_url
        self.url = f"http://127.0.0.1:{self.port}"
        self.django_url = f"http://127.0.0.1:{self.django_port}"
        self.settings = {
            "DATABASE": str(self.directory / "db.sqlite3"),
            "SECRET_KEY": hashlib.sha256(os.urandom(32)).hexdigest(),
            "CORS_ALLOWED_ORIGINS": f"{self.url},{self.django_url}",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Stops all processes at once, and Redis after them."""
        redis = [process for process in self.processes if process.name == "redis"]
        others = [process for process in self.processes if process.name != "redis"]
        for process in others:
            process.signal(signal.SIGTERM)
        for process in [*others, *redis]:
            process.stop()

    def start(self, name, command, **variables):
        log = self.directory / f"{name}.log"
        process = Process(name, command, log, cwd=self.home, **{**self.settings, **variables})
        self.processes.append(process)
        return process

    def stop(self, process, how=signal.SIGTERM):
        self.processes.remove(process)
        return process.stop(how)

    def wait(self):
        """Waits until a process ends by itself, which is an error."""
        while True:
            for process in self.processes:
                if process.popen.poll() is not None:
                    raise SystemExit(f"{process.name} ended. Its log:\n{process.read_log()[-4000:]}")
            time.sleep(1)

    def redis(self):
        if self.redis_url is None:
            if shutil.which("redis-server") is None:
                raise SystemExit("redis-server is not installed: install it, or set REDIS_URL")
            port = free_port()
            command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", self.directory]
            self.start("redis", command).until(lambda: accepts(port))
            self.redis_url = f"redis://127.0.0.1:{port}"
        self.settings["REDIS_URL"] = self.redis_url.rstrip("/")

    def manage(self, *arguments, **variables):
        command = [self.python, self.home / "manage.py", *arguments]
        made = {**os.environ, **self.settings, **variables}
        done = subprocess.run(command, cwd=self.home, env=made, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")

    def database(self, *users, password):
        self.manage("migrate", "--verbosity", "0")
        program = (
            "import os; from django.contrib.auth.models import User; from django.contrib.auth import hashers\n"
            "password = hashers.make_password(os.environ['PASSWORD'])\n"
            "names = os.environ['USERS'].split()\n"
            "User.objects.bulk_create([User(username=name, password=password) for name in names])"
        )
        self.manage("shell", "-c", program, USERS=" ".join(users), PASSWORD=password)

    def django(self):
        command = [self.python, "-m", "daphne", "-b", "127.0.0.1", "-p", self.django_port]
        process = self.start("django", [*command, "backend.asgi:application"])
        process.until(lambda: answers(f"{self.django_url}/api/v1/health/"))
        return process

    def worker(self, name="worker", queue="celery", concurrency=2, **variables):
        command = [self.python, "-m", "celery", "-A", "backend", "worker", "--hostname", f"{name}@%h", "-Q", queue]
        # Gossip is useless on one machine.
        command += ["--without-gossip", "--without-mingle", "--loglevel", "info", "--concurrency", concurrency]
        process = self.start(name, command, **variables)
        process.until(lambda: re.search(r"@\S+ ready\.", process.read_log()))
        return process

    def setting(self, name, default):
        return self.settings.get(name, os.environ.get(name, default))

    def gateway(self, binary, config=PRESET, name="gateway", port=None, wait_for="/readyz", **variables):
        """Starts a gateway and waits until this health check succeeds. A second one needs another name and port."""
        port, admin = port or self.port, free_port()
        wire = {"core": "channels-core", "pubsub": "channels-pubsub"}
        known = {
            "DJANGO_URL": self.django_url,
            "ORIGIN": self.url,
            "CHANNELS_WIRE": wire[self.setting("CHANNEL_LAYER", "core")],
            "TIDEGATE__SERVER__LISTEN": f"127.0.0.1:{port}",
            "TIDEGATE__ADMIN__LISTEN": f"127.0.0.1:{admin}",
        }
        if self.setting("CACHE", "django") == "django-redis-json":
            known["TIDEGATE__TOKENS__FORMAT"] = "json"
            known["TIDEGATE__UPSTREAM__WORKER__TRACK__FORMAT"] = "json"
        process = self.start(name, [binary, "serve", "--config", config], **{**known, **variables})
        process.url, process.admin_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        process.until(lambda: answers(f"{process.admin_url}{wait_for}"))
        return process
