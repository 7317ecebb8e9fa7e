"""Django Channels as its documentation sets it up: sessions, allowed origins, routing, served by Daphne."""

import os
import sys

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="0123456789abcdef" * 4,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "users.sqlite3"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    USE_TZ=True,
)
django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.contrib.auth import authenticate, get_user_model, login  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def sign_in(request):
    login(request, authenticate(request, username=request.POST["name"], password=request.POST["password"]))
    return HttpResponse("welcome")


class Echo(AsyncWebsocketConsumer):
    async def connect(self):
        if self.scope["url_route"]["kwargs"]["room"] == "closed":
            await self.close()
            return
        offered = self.scope["subprotocols"]
        await self.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
        await self.send(f"{self.scope['user'].username or 'nobody'}, {self.scope['query_string'].decode()}")

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "bye":
            await self.close(code=4321)
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)


urlpatterns = [path("sign-in/", sign_in)]
application = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": AllowedHostsOriginValidator(
        AuthMiddlewareStack(URLRouter([path("ws/<room>/", Echo.as_asgi())])),
    ),
})

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_user("ana", password="secret of ana")
    # Daphne imports this file as a module of its own.
    port = os.environ["PORT"]
    os.execv(sys.executable, [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", port, "server:application"])
