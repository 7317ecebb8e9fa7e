"""A worker that answers chat messages: it takes them from a Redis stream, and publishes its replies with history.

Nothing in it knows of WebSockets. REDIS_HOST, REDIS_PORT and REDIS_PASSWORD say where Redis is. `--healthy` exits
with 0 where a worker beside it has been alive within the last seconds.
"""

import json
import os
import pathlib
import re
import signal
import socket
import sys
import time
from urllib.parse import quote

import redis
# clients/redis/publish.py, which the image has beside this file.
from publish import Publisher

QUEUE, GROUP = "chat_messages", "workers"
PACE = float(os.environ.get("PACE", "0.05"))
ALIVE = pathlib.Path(os.environ.get("ALIVE_FILE", "/tmp/alive"))
FRESH = 15
# A message that was taken this long ago and is not done belongs to a worker that died.
ABANDONED_MS = 60_000
REMEMBER_MS = 600_000


def redis_url():
    host, port = os.environ.get("REDIS_HOST", "127.0.0.1"), os.environ.get("REDIS_PORT", "6379")
    password = quote(os.environ.get("REDIS_PASSWORD", ""), safe="")
    return f"redis://:{password}@{host}:{port}/0" if password else f"redis://{host}:{port}/0"


def reply(job):
    """The words of an answer; a model would be asked here."""
    words = len(job["message"].split())
    text = f"You said “{job['message'][:200]}”, which is {words} word{'s' * (words != 1)}."
    return re.findall(r"\S+\s*", text)


class Worker:
    def __init__(self, url):
        # Above the time that a read waits for a message.
        self.redis = redis.Redis.from_url(url, socket_timeout=10, health_check_interval=15)
        self.publisher = Publisher(url)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.stopping = False

    def stop(self, *_):
        self.stopping = True

    def run(self):
        while not self.stopping:
            try:
                self.join()
                while not self.stopping:
                    ALIVE.touch()
                    for entry, fields in self.abandoned() or self.next():
                        self.answer(entry, fields)
            except redis.RedisError as error:
                print(f"worker: Redis: {error}", file=sys.stderr, flush=True)
                time.sleep(1)

    def join(self):
        try:
            self.redis.xgroup_create(QUEUE, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def next(self):
        streams = self.redis.xreadgroup(GROUP, self.name, {QUEUE: ">"}, count=1, block=2000)
        return streams[0][1] if streams else []

    def abandoned(self):
        _, entries, *_ = self.redis.xautoclaim(QUEUE, GROUP, self.name, ABANDONED_MS, count=1)
        return entries

    def answer(self, entry, fields):
        """A job is done when its reply is out; one that cannot be read is done at once."""
        try:
            job = json.loads(fields[b"message"])
            task, channel, words = job["task_id"], job["channel"], reply(job)
        except (KeyError, TypeError, ValueError) as error:
            print(f"worker: {entry}: not a message: {error!r}", file=sys.stderr, flush=True)
        else:
            self.publish(task, channel, words)
        self.redis.xack(QUEUE, GROUP, entry)

    def publish(self, task, channel, words):
        """A reply that was begun and comes again, after a lost Redis or a dead worker, goes on where it was."""
        events = [{"event": "processing_started"}]
        events += [{"event": "chunk", "chunk": word} for word in words]
        events += [{"event": "complete"}]
        for number, event in enumerate(events, 1):
            if self.redis.exists(f"tg:cancel:{task}"):
                return
            if not self.once(channel, task, number, {**event, "task_id": task}):
                time.sleep(PACE)
            ALIVE.touch()

    def once(self, channel, task, number, event):
        """Publishes the event under this number unless that was done; says whether it was."""
        base, sender = f"tg:{{{channel}}}", self.publisher
        keys = [f"{base}:stream", f"{base}:meta", f"{base}:once:{task}"]
        arguments = [channel, sender.size, sender.ttl_ms, number, REMEMBER_MS, json.dumps(event)]
        return sender.script(keys=keys, args=arguments)[2]


def healthy():
    try:
        return time.time() - ALIVE.stat().st_mtime < FRESH
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1:] == ["--healthy"]:
        sys.exit(not healthy())
    worker = Worker(redis_url())
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    worker.run()
