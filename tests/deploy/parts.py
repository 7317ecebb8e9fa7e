"""What the tests of deploy/ share: paths of the repository, gateways, and the sockets of clients."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DEADLINE = 20

# The Django example starts processes in the same way.
sys.path.append(str(ROOT / "examples" / "django"))
from stack import Process, answers, free_port  # noqa: E402


@contextlib.contextmanager
def directory():
    """Yields a temporary directory that any user may enter. Processes that were started in it are stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="tidegate-") as path:
        started = []
        try:
            yield Folder(pathlib.Path(path), started)
        finally:
            for process in reversed(started):
                process.stop()


class Folder:
    def __init__(self, path, started):
        self.path, self.started = path, started
        path.chmod(0o755)

    def start(self, name, command, cwd=ROOT, **variables):
        process = Process(name, command, self.path / f"{name}.log", cwd=cwd, **variables)
        self.started.append(process)
        return process

    def write(self, name, text):
        path = self.path / name
        path.write_text(text)
        return path


class Gateway:
    """A gateway that serves `config` on other ports."""

    def __init__(self, folder, name, binary, config, **variables):
        self.public, self.admin = free_port(), free_port()
        self.url, self.admin_url = f"ws://127.0.0.1:{self.public}", f"http://127.0.0.1:{self.admin}"
        self.variables = {
            "TIDEGATE__SERVER__LISTEN": f"127.0.0.1:{self.public}",
            "TIDEGATE__ADMIN__LISTEN": f"127.0.0.1:{self.admin}",
            **variables,
        }
        command = [binary, "serve", "--config", config]
        self.process = folder.start(name, command, **self.variables)
        self.process.until(lambda: answers(f"{self.admin_url}/readyz"))


def receive(socket):
    return json.loads(socket.recv(timeout=DEADLINE))


def receive_until(socket, event):
    """Returns all frames up to the first of `event`."""
    frames = [receive(socket)]
    while frames[-1]["event"] != event:
        frames.append(receive(socket))
    return frames


def eventually(condition, what):
    until = time.monotonic() + DEADLINE
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"it never became true: {what}")
        time.sleep(0.02)
    return found


def run(*command, **variables):
    """Runs a command that must succeed, and returns its output."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
