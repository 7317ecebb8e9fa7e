"""The chat's WebSocket consumer. The gateway replaces this file."""

import json
from datetime import datetime, timezone
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from . import conversations, limits

UNAUTHENTICATED = 4001
FORBIDDEN = 4003
TOO_MANY = 4029
TOO_LARGE = "Message too large (max 32KB)"
NOT_JSON = "Invalid message format. Please try again."
EMPTY = "Message cannot be empty"
RATE_LIMITED = "Rate limit exceeded. Try again in 60 minutes."
NO_SESSION_ID = "session_id is required for avatar generation"
FAILED = "Something went wrong processing your request. Please try again or rephrase your message."


def origin_is_allowed(headers):
    """A request without Origin is not from a browser. Any scheme and any sub-domain of a listed host is allowed."""
    origin = headers.get(b"origin")
    if origin is None:
        return True
    host = urlsplit(origin.decode("latin-1")).netloc.lower()
    listed = {urlsplit(allowed).netloc.lower() for allowed in settings.CORS_ALLOWED_ORIGINS}
    return any(host == allowed or host.endswith(f".{allowed}") for allowed in listed)


class HealthConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send(json.dumps({"status": "ok", "message": "WebSocket healthy"}))
        await self.close(1000)


class ChatConsumer(AsyncWebsocketConsumer):
    counted = False

    async def connect(self):
        self.conversation_id = self.scope["url_route"]["kwargs"]["conversation_id"]
        self.user = self.scope["user"]
        close_code = await self.admit()
        if close_code:
            return await self.close(close_code)
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        await self.send_event("connected", conversation_id=self.conversation_id)

    @property
    def group(self):
        return conversations.group(self.conversation_id)

    async def admit(self):
        """Returns the close code for a client that may not connect. Otherwise counts the connection and returns None."""
        if not origin_is_allowed(dict(self.scope["headers"])):
            return FORBIDDEN
        if self.user is None:
            return UNAUTHENTICATED
        if not await sync_to_async(limits.connect)(self.user.pk):
            return TOO_MANY
        self.counted = await sync_to_async(limits.open_connection)(self.user.pk)
        return None if self.counted else TOO_MANY

    async def disconnect(self, code):
        if self.counted:
            await self.channel_layer.group_discard(self.group, self.channel_name)
            await sync_to_async(limits.close_connection)(self.user.pk)

    async def receive(self, text_data=None, bytes_data=None):
        if len(text_data.encode()) > settings.MAX_FRAME_BYTES:
            return await self.send_error(TOO_LARGE)
        try:
            data = json.loads(text_data)
        except ValueError:
            return await self.send_error(NOT_JSON)
        try:
            await self.answer(data)
        except Exception:
            await self.send_error(FAILED)

    async def answer(self, data):
        if data.get("type") == "ping":
            return await self.send_event("pong")
        message = data.get("message", "").strip()
        if not message:
            return await self.send_error(EMPTY)
        if not await sync_to_async(limits.message)(self.user.pk):
            return await self.send_error(RATE_LIMITED)
        if self.conversation_id.startswith("avatar-"):
            return await self.generate_avatar(message, data)
        task_id = await sync_to_async(conversations.send_message)(
            self.conversation_id, message, self.user.pk, data.get("image_url")
        )
        await self.send_event("task_queued", task_id=task_id)

    async def generate_avatar(self, prompt, data):
        session_id = data.get("session_id")
        if not session_id:
            return await self.send_error(NO_SESSION_ID)
        task_id = await sync_to_async(conversations.generate_avatar)(
            self.conversation_id, prompt, self.user.pk, session_id, data.get("reference_image_url")
        )
        await self.send_event("avatar_task_queued", task_id=task_id)

    async def chat_message(self, event):
        """Forwards everything that a task sends to the group, unchanged."""
        await self.send(json.dumps(event))

    async def send_event(self, event, **fields):
        now = datetime.now(timezone.utc).replace(tzinfo=None).isoformat() + "Z"
        await self.send(json.dumps({"event": event, **fields, "timestamp": now}))

    async def send_error(self, text):
        await self.send_event("error", error=text)
