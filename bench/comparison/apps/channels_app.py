"""The service on Django Channels: a consumer on a group, and POST /publish/{channel}, which sends the body, or each line
of it, to the group. Messages are relayed to a list in Redis."""

import json
import os
import uuid

import django
from django.conf import settings

PORT = int(os.environ["REDIS_PORT"])
settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [("127.0.0.1", PORT)], "capacity": 10_000},
        }
    },
)
django.setup()

import redis.asyncio  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402

commands = redis.asyncio.Redis(port=PORT)


class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.group = self.scope["path"].rsplit("/", 1)[-1]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def chunk(self, event):
        await self.send(text_data=event["text"])

    async def receive(self, text_data=None, bytes_data=None):
        task = str(uuid.uuid4())
        await commands.lpush("bench_messages", json.dumps({**json.loads(text_data), "task_id": task}))
        await self.send(text_data=json.dumps({"event": "task_queued", "task_id": task}))


async def publish(scope, receive, send):
    group = scope["path"].rsplit("/", 1)[-1]
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    layer = get_channel_layer()
    for line in body.decode().split("\n"):
        await layer.group_send(group, {"type": "chunk", "text": line})
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


application = ProtocolTypeRouter({"http": publish, "websocket": Consumer.as_asgi()})
