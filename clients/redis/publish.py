"""Publishes with history: publish.py REDIS_URL CHANNEL JSON…

Needs the `redis` package. In a worker, use `Publisher` and publish.lua.
"""

import json
import pathlib
import sys

import redis

SCRIPT = pathlib.Path(__file__).with_name("publish.lua").read_text()


class Publisher:
    """Publishes with history. `size` and `ttl_ms` are those of the gateway's `[route.history]`."""

    def __init__(self, url, prefix="tg:", size=1000, ttl_ms=300_000):
        self.script = redis.Redis.from_url(url).register_script(SCRIPT)
        self.prefix, self.size, self.ttl_ms = prefix, size, ttl_ms

    def publish(self, channel, event):
        base = f"{self.prefix}{{{channel}}}"
        arguments = [channel, self.size, self.ttl_ms, json.dumps(event)]
        epoch, offset, _ = self.script(keys=[f"{base}:stream", f"{base}:meta"], args=arguments)
        return epoch.decode(), offset


if __name__ == "__main__":
    url, channel, *events = sys.argv[1:]
    publisher = Publisher(url)
    for event in events:
        print(*publisher.publish(channel, json.loads(event)))
