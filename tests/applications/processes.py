"""Starts processes, waits until they are ready, and ends them with all that they have started."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
from free_port import free_port  # noqa: E402, F401

START_DEADLINE = 60
STOP_DEADLINE = 20


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# All processes that have not been ended. Each leads a session, so that Ctrl-C reaches only the runner.
RUNNING = set()


def start(command, output, cwd, variables):
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    RUNNING.add(process)
    return process


def end_session(process):
    """Kills a process that leads a session, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    RUNNING.discard(process)


def end_all():
    for process in list(RUNNING):
        end_session(process)


class Process:
    """A process whose output is a file."""

    def __init__(self, name, command, log, cwd, variables):
        self.name, self.log = name, log
        with log.open("wb") as output:
            self.popen = start(command, output, cwd, variables)

    def read_log(self):
        return self.log.read_text(errors="replace")

    def until(self, ready, what):
        """Waits until `ready` returns a true value, and returns it."""
        deadline = time.monotonic() + START_DEADLINE
        while not (value := ready()):
            assert self.popen.poll() is None, f"{self.name} ended by itself with {self.popen.returncode}"
            assert time.monotonic() < deadline, f"{self.name}: no {what} within {START_DEADLINE} s"
            time.sleep(0.02)
        return value

    def wait_for_port(self, port):
        self.until(lambda: accepts(port), f"listener on port {port}")

    def stop(self):
        """Asks the process to end, and returns its exit code; `None` if it had to be killed."""
        self.popen.terminate()
        try:
            return self.popen.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end_session(self.popen)


class Stack:
    """Processes that are ended in reverse order when the context ends."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        folder.mkdir()

    def start(self, name, command, cwd, **variables):
        process = Process(name, command, self.folder / f"{name}.log", cwd, variables)
        self.processes.append(process)
        return process

    def logs(self):
        return "\n".join(f"--- {process.name} said:\n{process.read_log()[-6000:]}" for process in self.processes)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for process in reversed(self.processes):
            process.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(5)
            end_session(process.popen)
