"""Settings of the example. The environment can change them; gateway.toml names those that the gateway shares.

    REDIS_URL         redis://127.0.0.1:6379   without a database number
    CHANNEL_LAYER     core | pubsub            one of the two layers of channels_redis
    CACHE             django | django-redis | django-redis-json
    MESSAGES_PER_HOUR 50
"""

import os
from datetime import timedelta
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")

SECRET_KEY = os.environ.get("SECRET_KEY", "example-only-0123456789abcdef0123456789abcdef")
DEBUG = os.environ.get("DEBUG") == "1"
ALLOWED_HOSTS = ["*"]
CORS_ALLOWED_ORIGINS = os.environ.get("CORS_ALLOWED_ORIGINS", "http://localhost:8000").split(",")

INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "channels",
    "chat",
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
    }
]
ROOT_URLCONF = "backend.urls"
ASGI_APPLICATION = "backend.asgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "db.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["chat.authentication.CookieJWTAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
}

# The cache holds the connection tokens and the counters of the limits. A key is KEY_PREFIX:VERSION:key.
CACHE = os.environ.get("CACHE", "django")
CACHES = {
    "default": {
        "LOCATION": f"{REDIS_URL}/2",
        "KEY_PREFIX": os.environ.get("CACHE_KEY_PREFIX", "app"),
        "VERSION": 1,
    }
}
if CACHE == "django":
    CACHES["default"]["BACKEND"] = "django.core.cache.backends.redis.RedisCache"
else:
    CACHES["default"]["BACKEND"] = "django_redis.cache.RedisCache"
    if CACHE == "django-redis-json":
        serializer = "django_redis.serializers.json.JSONSerializer"
        CACHES["default"]["OPTIONS"] = {"SERIALIZER": serializer}

CHANNEL_LAYER = os.environ.get("CHANNEL_LAYER", "core")
CHANNELS_PREFIX = os.environ.get("CHANNELS_PREFIX", "asgi")
if CHANNEL_LAYER == "core":
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                "hosts": [f"{REDIS_URL}/3"],
                "prefix": CHANNELS_PREFIX,
                "capacity": 1500,
                "expiry": 10,
            },
        }
    }
else:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [f"{REDIS_URL}/3"], "prefix": CHANNELS_PREFIX},
        }
    }

CELERY_BROKER_URL = f"{REDIS_URL}/0"
CELERY_RESULT_BACKEND = f"{REDIS_URL}/0"
CELERY_TASK_TIME_LIMIT = 300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

# The limits of the chat socket. Every counter is a key in the cache (see chat/limits.py).
CONNECTION_TOKEN_TTL = 60
MESSAGES_PER_HOUR = int(os.environ.get("MESSAGES_PER_HOUR", "50"))
CONNECTS_PER_MINUTE = int(os.environ.get("CONNECTS_PER_MINUTE", "10"))
CONNECTIONS_PER_USER = int(os.environ.get("CONNECTIONS_PER_USER", "5"))
MAX_FRAME_BYTES = 32 * 1024
TASK_EXPIRES = int(os.environ.get("TASK_EXPIRES", "600"))
