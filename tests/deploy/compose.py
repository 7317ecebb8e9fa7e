"""Runs deploy/compose without containers: compose.py BINARY

The stack's own gateway.toml, redis.conf, worker and commands, with only hosts, ports and folders replaced, and a
chat through all of them. Needs redis-server, and the Python packages redis, websockets and yaml.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import yaml
from websockets.sync.client import connect

from parts import DEADLINE, DEPLOY, Gateway, directory, free_port, receive, receive_until, run

COMPOSE = DEPLOY / "compose"


def secrets(folder):
    """Writes the secrets that the service `init` creates."""
    stack = folder.path / "stack"
    shutil.copytree(COMPOSE, stack, ignore=shutil.ignore_patterns(".env"))
    run(stack / "init")
    environment = stack / ".env"
    assert environment.stat().st_mode & 0o777 == 0o600, oct(environment.stat().st_mode)
    text = environment.read_text()
    again = subprocess.run([stack / "init"], capture_output=True, text=True)
    assert again.returncode == 1 and environment.read_text() == text, again
    found = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))
    hidden = [value for name, value in found.items() if re.search("SECRET|KEY|PASSWORD", name)]
    assert len(hidden) == len(set(hidden)) == 4 and all(len(value) == 64 for value in hidden), found
    return found


def filled_in(value, environment):
    """Replaces variables as Compose does: ${NAME}, ${NAME:-default}, ${NAME:?mistake}, and $$ for a dollar."""

    def replace(match):
        name, default = match.group(1), match.group(2)
        return environment[name] if name in environment or default is None else default

    value = re.sub(r"(?<!\$)\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", replace, str(value))
    return value.replace("$$", "$")


def variables(service, environment):
    return {name: filled_in(value, environment) for name, value in service["environment"].items()}


def start_redis(folder, service, environment):
    port = free_port()
    for name in ("run", "data"):
        (folder.path / name).mkdir()
    settings = (COMPOSE / "redis.conf").read_text()
    assert "\ndir /data\n" in settings
    settings = folder.write("redis.conf", settings.replace("dir /data", f"dir {folder.path / 'data'}\nport {port}"))
    (script,) = service["command"]
    script = filled_in(script, {}).replace("/run/redis", str(folder.path / "run"))
    script = script.replace("/etc/redis/redis.conf", str(settings))
    assert service["entrypoint"] == ["/bin/sh", "-euc"]
    own = variables(service, environment)
    redis = folder.start("redis", ["/bin/sh", "-euc", script], **own)
    kind, check = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = filled_in(check, {}).replace("redis-cli", f"redis-cli -p {port}")
    healthy = ["/bin/sh", "-c", check]
    redis.until(
        lambda: subprocess.run(healthy, env={**os.environ, **own}, capture_output=True).returncode == 0
    )
    # Without the password, Redis refuses commands.
    assert "NOAUTH" in run("redis-cli", "-p", port, "ping")
    return port


def main():
    binary = os.path.abspath(sys.argv[1])
    services = yaml.safe_load((COMPOSE / "compose.yml").read_text())["services"]
    with directory() as folder:
        environment = secrets(folder)
        redis_port = start_redis(folder, services["redis"], environment)
        password = environment["REDIS_PASSWORD"]

        own = variables(services["gateway"], environment)
        own["TIDEGATE__ENGINE__REDIS__URL"] = f"redis://:{password}@127.0.0.1:{redis_port}/0"
        config = COMPOSE / "gateway" / "gateway.toml"
        gateway = Gateway(folder, "gateway", binary, config, **own)
        print(run(binary, "health", "--url", gateway.admin_url).strip())

        place_of_publish = {"PYTHONPATH": str(DEPLOY.parent / "clients" / "redis")}
        alive = folder.path / "alive"
        own_worker = {
            **variables(services["worker"], environment),
            **place_of_publish,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis_port),
            "PACE": "0",
            "ALIVE_FILE": str(alive),
        }
        command = [sys.executable, COMPOSE / "worker" / "worker.py"]
        worker = folder.start("worker", command, **own_worker)
        worker.until(alive.exists)
        run(*command, "--healthy", **own_worker)

        jwt = run(binary, "token", "--config", config, "--user", "1", "--jwt", **own).split()[-1]
        origin = environment["APP_ORIGIN"]
        bearer = {"Authorization": f"Bearer {jwt}"}
        url = f"{gateway.url}/ws/chat/42/"
        with connect(url, origin=origin, additional_headers=bearer, open_timeout=DEADLINE) as chat:
            place_in_channel = receive(chat)
            assert place_in_channel["event"] == "connected", place_in_channel
            chat.send(json.dumps({"message": "hello there", "id": "m-1"}))
            queued, *frames = receive_until(chat, "complete")
        assert queued["event"] == "task_queued", queued
        assert {frame["task_id"] for frame in frames} == {queued["task_id"]}, frames
        text = "".join(frame.get("chunk", "") for frame in frames)
        assert text == "You said “hello there”, which is 2 words.", text
        print(f"ok: a chat through gateway, Redis and worker: {text}")

        # A client that resumes gets all of it from the history that the worker has written.
        since = f"?since={place_in_channel['offset']}&epoch={place_in_channel['epoch']}"
        with connect(url + since, origin=origin, additional_headers=bearer) as chat:
            assert receive(chat)["recovered"] is True
            assert receive_until(chat, "complete") == frames
        print("ok: the reply is in the history")

        for process in (worker, gateway.process):
            folder.started.remove(process)
            code = process.stop()
            assert code == 0, f"{process.name} stopped with {code}:\n{process.read_log()}"
        print("ok: worker and gateway stop when they are told to")


if __name__ == "__main__":
    main()
