"""Django with a StreamingHttpResponse, as WSGI and as ASGI."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import StreamingHttpResponse
from django.urls import path
from script import async_pieces, pieces

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="secret", ALLOWED_HOSTS=["*"], MIDDLEWARE=[])
django.setup()


def stream(request, case):
    return StreamingHttpResponse(pieces(case), content_type="text/event-stream")


async def async_stream(request, case):
    return StreamingHttpResponse(async_pieces(case), content_type="text/event-stream")


urlpatterns = [path("sync/<case>", stream), path("stream/<case>", async_stream)]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
