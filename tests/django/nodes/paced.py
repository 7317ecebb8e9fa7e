"""A task of the backend that replies slowly, with numbered chunks. It sends to the group as any Channels code does.

The message says how: paced CHUNKS PAUSE FIELDS END. FIELDS is "task_id" if every event is to have it, or "plain". END
is the name of the last event, or "none" for a task that only returns.
"""

import time

from celery import shared_task
from chat.tasks import Group


@shared_task(bind=True)
def reply(self, conversation_id, message, user_id, channel_name, image_url=None):
    """Returns when the last event was sent, in seconds since 1970."""
    _, chunks, pause, fields, end = message.split()
    group = Group(channel_name, **({"task_id": self.request.id} if fields == "task_id" else {}))
    group.send("processing_started")
    due = time.monotonic()
    for number in range(int(chunks)):
        group.send("chunk", chunk=f"{number} ", number=number)
        due += float(pause)
        time.sleep(max(0, due - time.monotonic()))
    if end != "none":
        group.send(end)
    return time.time()
