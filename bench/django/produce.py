"""Sends events as a task does, at a steady rate: produce.py NAME CONVERSATIONS EVENTS RATE

Sends EVENTS chunks to each conversation, RATE per second in total. The names of the conversations start with NAME.
Each chunk has the time at which it was sent.
"""

import asyncio
import os
import sys
import time

import django
from channels.layers import get_channel_layer


async def produce(name, conversations, count, rate):
    layer = get_channel_layer()
    due = time.monotonic()
    for number in range(conversations * count):
        await asyncio.sleep(max(0, due - time.monotonic()))
        due += 1 / rate
        event = {"type": "chat.message", "event": "chunk", "chunk": "a word or two", "sent": time.time()}
        await layer.group_send(f"chat_{name}-{number % conversations}", event)


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
django.setup()
asyncio.run(produce(sys.argv[1], *map(int, sys.argv[2:])))
