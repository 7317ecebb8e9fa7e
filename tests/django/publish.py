"""A producer with the real channel layer, outside the worker: publish.py GROUP COUNT BYTES

Sends COUNT chunk events of BYTES bytes to the group, each with its number, one after the other. What the layer
drops it tells its logger, and so standard error.
"""

import asyncio
import logging
import os
import sys

import django
from channels.layers import get_channel_layer


async def publish(group, count, size):
    layer = get_channel_layer()
    for number in range(count):
        event = {"type": "chat.message", "event": "chunk", "number": number, "chunk": "x" * size}
        await layer.group_send(group, event)


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
    django.setup()
    logging.basicConfig(level=logging.INFO)
    group, count, size = sys.argv[1:]
    asyncio.run(publish(group, int(count), int(size)))


main()
