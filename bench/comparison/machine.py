"""Processes of a measurement: started on a core, found again with all their children, and ended."""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_DEADLINE = 30
REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate-bench"


class Failed(Exception):
    """A server that does not start, or a measurement without a result. The text says what happened."""


def cores():
    return sorted(os.sched_getaffinity(0))


def pinned(command, core):
    """Returns the command bound to a core, if there are two and taskset is installed."""
    available = cores()
    if core is None or len(available) < 2 or not shutil.which("taskset"):
        return command
    return ["taskset", "-c", str(available[0] if core == "server" else available[1]), *command]


@contextlib.contextmanager
def real_time(pids):
    """Gives the processes with these ids their core before all others, until the context ends. Returns how a command
    begins that is started in the same way; empty if that is not allowed."""
    priority = os.sched_get_priority_min(os.SCHED_FIFO)
    try:
        for pid in pids:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        yield []
        return
    try:
        yield ["chrt", "--fifo", str(priority)]
    finally:
        for pid in pids:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accepts(port):
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid):
    """Returns a process and all that it has started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


class Processes:
    """The processes of one measurement. Leaving the context ends them."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        everyone = [pid for process, _ in self.started for pid in descendants(process.pid)]
        for pid in reversed(everyone):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process, _ in self.started:
            process.wait()
        self.started.clear()

    def start(self, command, ports, core="server", counted=True, env=None, family=1):
        """Starts a process, and waits until it listens on all ports and there are as many processes of it as its
        `family` has. With `counted`, their use of CPU and memory is part of the measurement."""
        log = self.directory / f"{len(self.started)}-{Path(command[0]).name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                pinned([str(part) for part in command], core),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=self.directory,
                start_new_session=True,
            )
        self.started.append((process, counted))
        until = time.monotonic() + START_DEADLINE
        waiting = list(ports)
        while waiting or len(descendants(process.pid)) < family:
            waiting = [port for port in waiting if not accepts(port)]
            if process.poll() is not None or time.monotonic() > until:
                raise Failed(f"{Path(command[0]).name} does not start: {last_lines(log)}")
            time.sleep(0.02)
        return process

    def beside(self):
        """Returns the ids of the processes that share the generator's core."""
        return [pid for process, counted in self.started if not counted for pid in descendants(process.pid)]

    def measured(self):
        """Returns the ids of the measured processes and their children."""
        return [pid for process, counted in self.started if counted for pid in descendants(process.pid)]


def last_lines(log, count=3):
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-count:])


class World:
    """What all measurements of a run share: a directory, built binaries, and a Redis on the generator's core."""

    def __init__(self, binaries):
        self.binaries = Path(binaries)
        self.directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        self.shared = Processes(self.directory)
        self.redis_port = free_port()
        self.count = 0

    def __enter__(self):
        redis = shutil.which("redis-server")
        if not redis:
            raise Failed("redis-server is not installed")
        flags = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--maxclients", "12000", "--protected-mode", "no"]
        self.shared.start([redis, "--port", self.redis_port, *flags], [self.redis_port], core="load", counted=False)
        return self

    def __exit__(self, *_):
        self.shared.__exit__()
        shutil.rmtree(self.directory, ignore_errors=True)

    def processes(self):
        """Returns a group of processes with an empty directory and an empty Redis."""
        self.redis("FLUSHALL")
        self.count += 1
        directory = self.directory / str(self.count)
        directory.mkdir()
        return Processes(directory)

    @property
    def redis_address(self):
        return f"127.0.0.1:{self.redis_port}"

    def redis(self, *commands):
        """Sends commands in one go, and waits until all are answered. None of them may answer with a text."""
        with socket.create_connection(("127.0.0.1", self.redis_port)) as stream:
            stream.sendall(b"".join(encode(command) for command in commands))
            answers = 0
            while answers < len(commands):
                piece = stream.recv(1 << 16)
                if not piece or b"-ERR" in piece:
                    raise Failed(f"Redis: {piece[:200]}")
                answers += piece.count(b"\r\n")


def encode(command):
    parts = [str(part).encode() for part in ([command] if isinstance(command, str) else command)]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def describe():
    """Describes the machine, for the results."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    return {
        "cores": len(cores()),
        "processor": model,
        "memory_gib": round(memory),
        "kernel": platform.release().partition("-")[0],
        "load_before": round(os.getloadavg()[0], 1),
        "pinned": pinned(["true"], "server") != ["true"],
    }
