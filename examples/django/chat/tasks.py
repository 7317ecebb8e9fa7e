"""The worker. It sends its reply to the conversation's group piece by piece, and knows nothing about sockets.

Messages with a slash are commands for trying things out and for the tests: `/words 200` (a long reply), `/sleep 30`,
`/fail`, `/project`. All other messages are repeated.
"""

import os
import time

from asgiref.sync import async_to_sync
from celery import shared_task
from channels.layers import get_channel_layer

SLICE_SECONDS = 0.05


class Group:
    """The group that the conversation's sockets have joined."""

    def __init__(self, name, **fields):
        self.name = name
        self.fields = fields
        self.send_to_group = async_to_sync(get_channel_layer().group_send)

    def send(self, event, **fields):
        message = {"type": "chat.message", "event": event, **fields, **self.fields}
        self.send_to_group(self.name, message)


@shared_task
def process_chat_message_task(conversation_id, message, user_id, channel_name, image_url=None):
    assert type(user_id) is int, f"user_id is {user_id!r}, not a number"
    group = Group(channel_name, conversation_id=conversation_id)
    group.send("processing_started")
    command, _, argument = message.partition(" ")
    if command == "/fail":
        raise RuntimeError("the model said no")
    if command == "/sleep":
        sleep(float(argument))
    elif command == "/words":
        stream(group, (f"word{number} " for number in range(int(argument))))
    elif command == "/project":
        use_tool(group)
    else:
        image = f" (with {image_url})" if image_url else ""
        words = f"User {user_id} said “{message}”{image}.".split(" ")
        stream(group, (f"{word} " for word in words))
    group.send("completed", project_created=command == "/project")


def stream(group, pieces):
    for piece in pieces:
        group.send("chunk", chunk=piece)


def sleep(seconds):
    """Sleeps in short steps, so that a revoked task ends quickly. Logs the process id first."""
    print(f"sleeping in process {os.getpid()}", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(SLICE_SECONDS)


def use_tool(group):
    group.send("tool_start", tool="create_project")
    found = [{"title": "Café 🚀", "score": 0.5, "tags": ["a", None, True]}, {"title": "", "score": -3, "tags": []}]
    output = {"success": True, "project": {"id": 2**40, "url": "/p/“quoted”/", "related": found}, "error": None}
    group.send("tool_end", tool="create_project", output=output)
    stream(group, ["There ", "it ", "is."])


@shared_task
def process_avatar_generation_task(session_id, prompt, user_id, channel_name, reference_image_url=None):
    assert type(user_id) is int
    session_id = int(session_id)  # Like Django's ORM, it takes the id as a number or as text.
    conversation_id = channel_name.removeprefix("chat_")
    group = Group(channel_name, conversationId=conversation_id, sessionId=session_id)
    group.send("avatar_generating", message=f"Drawing “{prompt}” …")
    image = f"https://images.example/{session_id}.png"
    group.send("avatar_generated", imageUrl=image, iterationId=1, iterationNumber=1, textResponse=prompt)
