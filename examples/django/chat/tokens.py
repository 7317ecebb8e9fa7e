"""Single-use connection tokens: records in Django's cache, at ws_conn_token:<token>.

The page requests a token over HTTP, authenticated by its cookie, and opens its socket with it.
"""

import re
import secrets
import time

from django.conf import settings
from django.core.cache import cache

SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


def key(token):
    return f"ws_conn_token:{token}"


def issue(user, connection_id):
    token = secrets.token_urlsafe(32)
    record = {
        "user_id": user.pk,
        "username": user.get_username(),
        "connection_id": connection_id,
        "created_at": time.time(),
        "used": False,
    }
    cache.set(key(token), record, timeout=settings.CONNECTION_TOKEN_TTL)
    return token


def consume(token):
    """Deletes and returns the record. Returns None for a token that is unknown, expired or used."""
    if not SHAPE.fullmatch(token):
        return None
    record = cache.get(key(token))
    if record is None or not cache.delete(key(token)) or record["used"]:
        return None
    return record
