"""Publishes through the real channel layer, outside the worker: publish.py GROUP COUNT RATE

Sends COUNT chunk events of a kilobyte to the group, each with its number, at most RATE a second: what is late is
not made up for. What the layer drops it tells its logger, and so standard error.
"""

import asyncio
import logging
import os
import sys
import time

import django
from channels.layers import get_channel_layer


async def publish(group, count, rate):
    layer = get_channel_layer()
    for number in range(count):
        next_one = time.monotonic() + 1 / rate
        event = {"type": "chat.message", "event": "chunk", "number": number, "chunk": "x" * 1000}
        await layer.group_send(group, event)
        await asyncio.sleep(next_one - time.monotonic())


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
    django.setup()
    logging.basicConfig(level=logging.INFO)
    group, count, rate = sys.argv[1:]
    asyncio.run(publish(group, int(count), int(rate)))


main()
