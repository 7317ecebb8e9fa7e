"""deploy/systemd/roll replaces a gateway that has clients, and no client is refused: roll.py BINARY

The script is the real one, and so is the unit that it starts; systemd is a stand-in (systemctl.py). Needs
redis-server, and the Python package websockets.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from parts import DEADLINE, DEPLOY, ROOT, directory, eventually, free_port

CLIENTS = 50
CONFIG = """
[shutdown]
drain = "1s"
grace = "5s"
[engine]
kind = "redis"
[engine.redis]
url = "redis://127.0.0.1:{redis}"
[[route]]
path = "/ws/{{room}}/"
channel = "room_{{room}}"
upstream = ""
auth = ["anonymous"]
"""


class Machine:
    """The state of the simulated systemctl, and the socket that systemd would hold."""

    def __init__(self, folder, binary):
        self.folder, self.state = folder, folder.path / "units"
        self.state.mkdir()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.environment = {
            **os.environ,
            "STATE": str(self.state),
            "PUBLIC": str(self.listener.fileno()),
            "TIDEGATE": binary,
            "CONFIG": str(folder.path / "gateway.toml"),
            "SYSTEMCTL": str(ROOT / "tests" / "deploy" / "systemctl.py"),
            "ADMIN": free_admin_ports(),
            "DEADLINE": "20",
        }

    def run(self, *command):
        return subprocess.run(
            command,
            env=self.environment,
            pass_fds=(self.listener.fileno(),),
            capture_output=True,
            text=True,
            timeout=90,
        )

    def roll(self, *arguments):
        return self.run(DEPLOY / "systemd" / "roll", *arguments)

    def systemctl(self, *arguments):
        return self.run(self.environment["SYSTEMCTL"], *arguments)

    def states(self):
        return [self.systemctl("is-active", f"tidegate@{one}.service").stdout.strip() for one in (1, 2)]

    def read_log(self):
        return "".join(path.read_text() for path in sorted(self.state.glob("*.log")))

    def stop(self):
        for path in self.state.glob("*.service"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass


def free_admin_ports():
    """Returns the part that two free ports have in common, without the number of the instance."""
    while True:
        prefix = str(free_port() // 10)
        try:
            for instance in (1, 2):
                socket.create_server(("127.0.0.1", int(f"{prefix}{instance}"))).close()
            return f"127.0.0.1:{prefix}"
        except OSError:
            continue


async def end_of(client):
    """Returns the client's last event and its close code."""
    last = None
    try:
        while True:
            last = json.loads(await client.recv())["event"]
    except ConnectionClosed as closed:
        return last, closed.rcvd.code


async def connect_repeatedly(machine, stop):
    """Connects new clients one after the other. Returns how many were admitted, and how many had to retry.

    The port takes each of them. Whom the old gateway has taken but not heard in the moment it is told to stop, it
    closes; as over any network, such a client retries."""
    count, again = 0, 0
    while not stop.is_set():
        try:
            async with connect(f"{machine.url}/ws/a/", open_timeout=DEADLINE) as client:
                assert json.loads(await client.recv())["event"] == "connected"
                count += 1
        except InvalidMessage:
            again += 1
            assert again < 3, "the port is there, and does not answer"
    return count, again


async def under_clients(machine):
    clients = [await connect(f"{machine.url}/ws/a/", open_timeout=DEADLINE) for _ in range(CLIENTS)]
    ends = [asyncio.create_task(end_of(client)) for client in clients]
    stop = asyncio.Event()
    connecting = asyncio.create_task(connect_repeatedly(machine, stop))
    rolled = await asyncio.to_thread(machine.roll)
    assert rolled.returncode == 0, rolled.stderr + machine.read_log()
    stop.set()
    connected, again = await asyncio.wait_for(connecting, DEADLINE)
    closed = set(await asyncio.wait_for(asyncio.gather(*ends), DEADLINE))
    assert closed == {("going_away", 1012)}, closed
    assert connected > 0
    return f"{connected} came meanwhile, of which {again} twice"


def main():
    binary = os.path.abspath(sys.argv[1])
    with directory() as folder:
        redis = free_port()
        command = ["redis-server", "--port", redis, "--save", "", "--dir", folder.path]
        folder.start("redis", command).until(lambda: accepts(redis))
        folder.write("gateway.toml", CONFIG.format(redis=redis))
        machine = Machine(folder, binary)
        try:
            check(machine, folder)
        finally:
            machine.stop()


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check(machine, folder):
    started = machine.roll("--start")
    assert started.returncode == 0 and machine.states() == ["active", "inactive"], started
    again = machine.roll("--start")
    assert again.returncode == 0 and machine.states() == ["active", "inactive"], again

    connected = asyncio.run(under_clients(machine))
    assert machine.states() == ["inactive", "active"]
    print(f"ok: {CLIENTS} clients were told to move, {connected}, none was refused")
    connected = asyncio.run(under_clients(machine))
    assert machine.states() == ["active", "inactive"]
    print(f"ok: and back, {connected}")

    good = (folder.path / "gateway.toml").read_text()
    folder.write("gateway.toml", good.replace("[shutdown]", "[shutdwn]"))
    failed = machine.roll()
    assert failed.returncode == 1 and machine.states() == ["active", "inactive"], failed
    folder.write("gateway.toml", good)
    print("ok: a new instance that cannot start leaves the old one as it is")

    assert machine.systemctl("start", "tidegate@2.service").returncode == 0
    both = machine.roll()
    assert both.returncode == 2 and machine.states() == ["active", "active"], both
    for instance in (1, 2):
        assert machine.systemctl("stop", f"tidegate@{instance}.service").returncode == 0
    eventually(lambda: machine.states() == ["inactive", "inactive"], "both stopped")
    assert machine.roll("--nonsense").returncode == 2
    print("ok: two that run already are left alone")


if __name__ == "__main__":
    main()
