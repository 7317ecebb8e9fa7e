"""Counters in Django's cache, shared by the REST API and the sockets.

Windows are fixed: one starts with the first count and ends when its key expires.
"""

from django.conf import settings
from django.core.cache import cache

HOUR = 3600
MINUTE = 60
DAY = 86400


def count(key, limit, window):
    """Counts one more and returns True. If the window is full, counts nothing and returns False."""
    if cache.add(key, 1, timeout=window):
        return limit >= 1
    if cache.get(key, 0) >= limit:
        return False
    try:
        cache.incr(key)
    except ValueError:  # The key has expired meanwhile.
        cache.add(key, 1, timeout=window)
    return True


def message(user_id):
    return count(f"rate_limit:messages:user:{user_id}", settings.MESSAGES_PER_HOUR, HOUR)


def connect(user_id):
    return count(f"ws_rate:user:{user_id}", settings.CONNECTS_PER_MINUTE, MINUTE)


def open_connection(user_id):
    return count(f"ws_connections:user:{user_id}", settings.CONNECTIONS_PER_USER, DAY)


def close_connection(user_id):
    key = f"ws_connections:user:{user_id}"
    try:
        if cache.decr(key) <= 0:
            cache.delete(key)
    except ValueError:  # The key has expired or was deleted.
        pass
