"""What a task does, at a steady rate: produce.py CONVERSATIONS EVENTS RATE

EVENTS chunks for each of the conversations, RATE a second in all, each with the time at which it was sent.
"""

import asyncio
import os
import sys
import time

import django
from channels.layers import get_channel_layer


async def produce(conversations, count, rate):
    layer = get_channel_layer()
    due = time.monotonic()
    for number in range(conversations * count):
        await asyncio.sleep(max(0, due - time.monotonic()))
        due += 1 / rate
        event = {"type": "chat.message", "event": "chunk", "chunk": "a word or two", "sent": time.time()}
        await layer.group_send(f"chat_bench-{number % conversations}", event)


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
django.setup()
asyncio.run(produce(*map(int, sys.argv[1:])))
