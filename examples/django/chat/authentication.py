"""Authenticates callers by the access token in a cookie (HTTP), or by the credentials of a socket's handshake."""

from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.http.cookie import parse_cookie
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken, TokenError
from rest_framework_simplejwt.tokens import RefreshToken

from . import tokens

COOKIE = "access_token"


def version_key(user_id):
    """The key of the user's session version. Every session contains the version; increasing it ends all sessions."""
    return f"session:version:{user_id}"


def session(user):
    """Creates a session and returns its access token."""
    refresh = RefreshToken.for_user(user)
    refresh["session_version"] = cache.get(version_key(user.pk), 0)
    return refresh.access_token


def check_version(token):
    current = cache.get(version_key(token["user_id"]))
    claimed = token.get("session_version")
    if current is not None and claimed is not None and current != claimed:
        raise AuthenticationFailed("This session has been signed out.")


class CookieJWTAuthentication(JWTAuthentication):
    """simplejwt, with the token in the cookie that the login set, or in the Authorization header."""

    def authenticate(self, request):
        raw = request.COOKIES.get(COOKIE)
        if raw is None:
            found = super().authenticate(request)
        else:
            token = self.get_validated_token(raw)
            found = self.get_user(token), token
        if found is not None:
            check_version(found[1])
        return found


def user_of_token(raw):
    """Returns the active user of an access token, or None."""
    authentication = JWTAuthentication()
    try:
        token = authentication.get_validated_token(raw)
        check_version(token)
        return authentication.get_user(token)
    except (AuthenticationFailed, InvalidToken, TokenError):
        return None


def user_of_handshake(query, cookies):
    """Returns the user, or None. If the client sends a connection token, it must be valid: the cookie is not used then."""
    if connection_token := query.get("connection_token", [None])[0]:
        record = tokens.consume(connection_token)
        user_id = record and record["user_id"]
        return get_user_model().objects.filter(pk=user_id, is_active=True).first()
    for raw in (cookies.get(COOKIE), query.get("token", [None])[0]):
        if raw:
            return user_of_token(raw)
    return None


class SocketAuthentication:
    """Puts the user into a socket's scope, or None if nobody is signed in."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        query = parse_qs(scope["query_string"].decode("latin-1"))
        headers = dict(scope["headers"])
        cookies = parse_cookie(headers.get(b"cookie", b"").decode("latin-1"))
        user = await database_sync_to_async(user_of_handshake)(query, cookies)
        return await self.inner({**scope, "user": user}, receive, send)
