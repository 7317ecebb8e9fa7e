#!/usr/bin/env python3
"""The part of systemctl that deploy/systemd/roll uses, for machines whose first process is not systemd.

systemctl.py is-active|start|stop tidegate@N.service. Reads the unit for what it runs and with which variables, hands over
the socket as systemd does (LISTEN_FDS), and waits for READY=1. In the environment: STATE, a folder for this
script; PUBLIC, the listening socket's number; TIDEGATE and CONFIG, in place of the unit's; ADMIN, as for `roll`.
"""

import configparser
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

STATE = pathlib.Path(os.environ["STATE"])
UNIT = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "tidegate@.service"
DEADLINE = 30


def service():
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


def command(line):
    line = line.replace("/etc/tidegate/gateway.toml", os.environ["CONFIG"])
    return line.replace("/usr/bin/tidegate", os.environ["TIDEGATE"]).split()


def process(name):
    """Returns the id of the process while it runs."""
    try:
        pid = int((STATE / name).read_text())
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else pid


def is_active(name):
    state = "inactive"
    if process(name):
        state = "deactivating" if (STATE / f"{name}.stops").exists() else "active"
    print(state)
    return 0 if state == "active" else 3


def start(name):
    if process(name):
        return 0
    settings = service()
    assert settings["Type"] == "notify" and settings["Sockets"] == "tidegate-pair.socket"
    if subprocess.run(command(settings["ExecStartPre"])).returncode != 0:
        return 1
    instance = re.fullmatch(r"tidegate@(\d)\.service", name).group(1)
    variable, _, value = settings["Environment"].replace("%i", instance).partition("=")
    environment = {**os.environ, variable: value.replace("127.0.0.1:900", os.environ["ADMIN"])}
    (STATE / f"{name}.stops").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        path = STATE / f"{name}.notify"
        path.unlink(missing_ok=True)
        notifications.bind(str(path))
        notifications.settimeout(DEADLINE)
        environment |= {"NOTIFY_SOCKET": str(path), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "public"}
        pid = os.fork()
        if pid == 0:
            run(settings, environment, STATE / f"{name}.log")
        (STATE / name).write_text(str(pid))
        try:
            while b"READY=1" not in notifications.recv(4096).split(b"\n"):
                pass
        except TimeoutError:
            return 1
    return 0


def run(settings, environment, log):
    os.setsid()
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(int(os.environ["PUBLIC"]), 3)
    os.closerange(4, 256)
    # This changes the socket itself, for every process that has it open.
    os.set_blocking(3, settings.get("NonBlocking", "no") != "yes")
    arguments = command(settings["ExecStart"])
    os.execve(arguments[0], arguments, {**environment, "LISTEN_PID": str(os.getpid())})


def stop(name):
    pid = process(name)
    if pid is None:
        return 0
    (STATE / f"{name}.stops").touch()
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + DEADLINE
    while process(name):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            return 1
        time.sleep(0.02)
    return 0


if __name__ == "__main__":
    verb, name = sys.argv[1:]
    sys.exit({"is-active": is_active, "start": start, "stop": stop}[verb](name))
