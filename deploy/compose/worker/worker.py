"""A worker that answers chat messages. It reads them from a Redis stream and publishes its replies with history.

It knows nothing about WebSockets. REDIS_HOST, REDIS_PORT and REDIS_PASSWORD configure the connection to Redis.
`--healthy` exits with 0 if a worker on this machine has been active within the last 15 seconds.
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
# This is clients/redis/publish.py, which the image contains next to this file.
from publish import Publisher

QUEUE, GROUP = "chat_messages", "workers"
DELAY = float(os.environ.get("PACE", "0.05"))
ALIVE_FILE = pathlib.Path(os.environ.get("ALIVE_FILE", "/tmp/alive"))
MAX_AGE = 15
# A message that was read this long ago and is not acknowledged belongs to a worker that died.
ABANDONED_MS = 60_000
DEDUP_TTL_MS = 600_000


def redis_url():
    host, port = os.environ.get("REDIS_HOST", "127.0.0.1"), os.environ.get("REDIS_PORT", "6379")
    password = quote(os.environ.get("REDIS_PASSWORD", ""), safe="")
    return f"redis://:{password}@{host}:{port}/0" if password else f"redis://{host}:{port}/0"


def reply(job):
    """Returns the words of a reply. A real worker calls a model here."""
    words = len(job["message"].split())
    text = f"You said “{job['message'][:200]}”, which is {words} word{'s' * (words != 1)}."
    return re.findall(r"\S+\s*", text)


class Worker:
    def __init__(self, url):
        # The timeout must be above the time that a read waits for a message.
        self.redis = redis.Redis.from_url(url, socket_timeout=10, health_check_interval=15)
        self.publisher = Publisher(url)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.stopping = False

    def stop(self, *_):
        self.stopping = True

    def run(self):
        while not self.stopping:
            try:
                self.create_group()
                while not self.stopping:
                    ALIVE_FILE.touch()
                    for entry, fields in self.claim_abandoned() or self.read_new():
                        self.answer(entry, fields)
            except redis.RedisError as error:
                print(f"worker: Redis: {error}", file=sys.stderr, flush=True)
                time.sleep(1)

    def create_group(self):
        try:
            self.redis.xgroup_create(QUEUE, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read_new(self):
        streams = self.redis.xreadgroup(GROUP, self.name, {QUEUE: ">"}, count=1, block=2000)
        return streams[0][1] if streams else []

    def claim_abandoned(self):
        _, entries, *_ = self.redis.xautoclaim(QUEUE, GROUP, self.name, ABANDONED_MS, count=1)
        return entries

    def answer(self, entry, fields):
        """Acknowledges a job when its reply is published. A job that is not valid is acknowledged at once."""
        try:
            job = json.loads(fields[b"message"])
            task, channel, words = job["task_id"], job["channel"], reply(job)
        except (KeyError, TypeError, ValueError) as error:
            print(f"worker: {entry}: not a message: {error!r}", file=sys.stderr, flush=True)
        else:
            self.publish(task, channel, words)
        self.redis.xack(QUEUE, GROUP, entry)

    def publish(self, task, channel, words):
        """Publishes a reply. One that was interrupted, by Redis or a dead worker, continues where it stopped."""
        events = [{"event": "processing_started"}]
        events += [{"event": "chunk", "chunk": word} for word in words]
        events += [{"event": "complete"}]
        for number, event in enumerate(events, 1):
            if self.redis.exists(f"tg:cancel:{task}"):
                return
            if not self.publish_once(channel, task, number, {**event, "task_id": task}):
                time.sleep(DELAY)
            ALIVE_FILE.touch()

    def publish_once(self, channel, task, number, event):
        """Publishes the event under this number. Returns whether it had been published before."""
        base, publisher = f"tg:{{{channel}}}", self.publisher
        keys = [f"{base}:stream", f"{base}:meta", f"{base}:once:{task}"]
        arguments = [channel, publisher.size, publisher.ttl_ms, number, DEDUP_TTL_MS, json.dumps(event)]
        return publisher.script(keys=keys, args=arguments)[2]


def is_healthy():
    try:
        return time.time() - ALIVE_FILE.stat().st_mtime < MAX_AGE
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1:] == ["--healthy"]:
        sys.exit(not is_healthy())
    worker = Worker(redis_url())
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    worker.run()
