"""Gateways on one Channels layer, with a Celery worker and a Redis of their own: nodes stop, die and are replaced."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import jwt
import redis.asyncio
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from stack import PRESET, Stack, free_port
from world import HIGHER

LAYERS = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}
# How long a node's clients are closed over when it stops.
DRAINS = ("0s", "500ms", "1s")
WORKER_THREADS = 16
TASK = {'task = "chat.tasks.process_chat_message_task"': 'task = "paced.reply"'}
SECRET = "tests-" + "0123456789abcdef" * 3


class Node:
    """A place for a gateway: its port stays, its process changes."""

    def __init__(self, number):
        self.name, self.port = f"node{number}", free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.process, self.starts = None, 0


class Cluster:
    """Starts everything in `directory`. `log` has what happened to the nodes, as (time, text)."""

    def __init__(self, binary, directory, layer, nodes, log_level, random):
        self.binary, self.layer, self.log_level, self.random = binary, layer, log_level, random
        self.stack = Stack(sys.executable, directory, CHANNEL_LAYER=layer, SECRET_KEY=SECRET)
        self.nodes = [Node(number) for number in range(nodes)]
        self.log, self.processes = [], []
        self.preset = self.stack.directory / "nodes.toml"

    async def __aenter__(self):
        text = PRESET.read_text()
        for old, new in {**HIGHER, **TASK}.items():
            assert old in text, f"the preset has no {old}"
            text = text.replace(old, new)
        self.preset.write_text(text)
        try:
            self.stack.redis()
            await asyncio.gather(asyncio.to_thread(self.start_worker), *map(self.start, self.nodes))
        except BaseException:
            self.stack.__exit__()
            raise
        self.engine = redis.asyncio.Redis.from_url(f"{self.stack.redis_url}/2")
        self.results = redis.asyncio.Redis.from_url(f"{self.stack.redis_url}/0")
        self.channel_layer = LAYERS[self.layer](hosts=[f"{self.stack.redis_url}/3"])
        return self

    async def __aexit__(self, *_):
        await self.engine.aclose()
        await self.results.aclose()
        await asyncio.to_thread(self.stack.__exit__)

    def start_worker(self):
        command = [sys.executable, "-m", "celery", "-A", "backend", "worker", "-Q", "celery", "--include", "paced"]
        command += ["--without-gossip", "--without-mingle", "--loglevel", "info"]
        command += ["--pool", "threads", "--concurrency", WORKER_THREADS]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        worker = self.stack.start("worker", command, PYTHONPATH=path)
        worker.until(lambda: re.search(r"@\S+ ready\.", worker.read_log()))

    def note(self, text):
        self.log.append((time.time(), text))

    async def start(self, node):
        node.starts += 1
        name, drain = f"{node.name}-{node.starts}", self.random.choice(DRAINS)
        variables = {
            "TIDEGATE__SHUTDOWN__DRAIN": drain,
            "TIDEGATE__LOG__LEVEL": self.log_level,
            "TIDEGATE__LOG__FORMAT": "json",
        }
        start = lambda: self.stack.gateway(self.binary, self.preset, name, node.port, **variables)
        node.process = await asyncio.to_thread(start)
        self.processes.append(node.process)
        self.note(f"{name} is ready, drain {drain}")

    async def stop(self, node, how=signal.SIGTERM):
        process, node.process = node.process, None
        self.note(f"{process.name} gets {how.name}")
        code = await asyncio.to_thread(self.stack.stop, process, how)
        self.note(f"{process.name} has ended with {code}")
        if how == signal.SIGTERM:
            assert code == 0, f"{process.name} ended with {code}:\n{process.read_log()[-4000:]}"

    def running(self):
        return [node for node in self.nodes if node.process]

    def session(self, user):
        """Returns a session JWT, as Django issues them."""
        claims = {"token_type": "access", "user_id": str(user), "exp": int(time.time()) + 7200}
        return jwt.encode(claims, SECRET, "HS256")

    async def ended_at(self, task_id):
        """Returns when the worker has sent its last event; None while the task runs."""
        result = json.loads(await self.results.get(f"celery-task-meta-{task_id}") or "{}")
        assert result.get("status") in (None, "SUCCESS"), result
        return result.get("result")

    async def has_settled(self):
        """Whether no reply is tracked any more, also none whose node has died."""
        return await self.engine.zcard("tg:generations") == 0
