"""The REST API. It signs users in and issues connection tokens, for Channels and the gateway alike."""

from pathlib import Path

from django.conf import settings
from django.contrib.auth import authenticate
from django.core.cache import cache
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import ensure_csrf_cookie
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from . import authentication, conversations, limits, tokens

PAGE = Path(__file__).with_name("page.html")


@ensure_csrf_cookie
def page(request):
    return HttpResponse(PAGE.read_bytes())


def health(request):
    return JsonResponse({"status": "healthy"})


class LogIn(APIView):
    authentication_classes = []
    permission_classes = [AllowAny]

    def post(self, request):
        username, password = request.data.get("username"), request.data.get("password")
        user = authenticate(request, username=username, password=password)
        if user is None:
            return Response({"error": "Wrong name or password"}, status=401)
        answer = Response({"user_id": user.pk, "username": user.get_username()})
        answer.set_cookie(
            authentication.COOKIE,
            str(authentication.session(user)),
            max_age=settings.SIMPLE_JWT["ACCESS_TOKEN_LIFETIME"],
            httponly=True,
            samesite="Lax",
        )
        get_token(request)
        return answer


class SignOutEverywhere(APIView):
    def post(self, request):
        key = authentication.version_key(request.user.pk)
        cache.set(key, cache.get(key, 0) + 1, timeout=7 * 86400)
        return Response(status=204)


class ConnectionToken(APIView):
    def post(self, request):
        connection_id = request.data.get("connection_id")
        token = tokens.issue(request.user, connection_id)
        expires_in = settings.CONNECTION_TOKEN_TTL
        return Response(
            {"connection_token": token, "expires_in": expires_in, "connection_id": connection_id}
        )


class Chat(APIView):
    """Takes messages from clients without a socket. They count against the same limit."""

    def post(self, request, conversation_id):
        if not limits.message(request.user.pk):
            return Response({"error": "Rate limit exceeded."}, status=429)
        message = str(request.data.get("message", "")).strip()
        task_id = conversations.send_message(conversation_id, message, request.user.pk)
        return Response({"task_id": task_id}, status=202)


class Clear(APIView):
    def post(self, request, conversation_id):
        return Response({"revoked": conversations.clear(conversation_id)})
