"""Django serves HTTP, Channels serves WebSockets: `daphne backend.asgi:application`."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
django_application = get_asgi_application()

# These imports need Django to be set up.
from chat.authentication import SocketAuthentication  # noqa: E402
from chat.consumers import ChatConsumer, HealthConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": SocketAuthentication(
            URLRouter(
                [
                    path("ws/health/", HealthConsumer.as_asgi()),
                    path("ws/chat/<str:conversation_id>/", ChatConsumer.as_asgi()),
                ]
            )
        ),
    }
)
