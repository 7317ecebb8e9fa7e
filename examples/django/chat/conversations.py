"""Queues tasks for a conversation, and remembers which of them may still run."""

from celery import current_app
from django.conf import settings
from django.core.cache import cache

from .tasks import process_avatar_generation_task, process_chat_message_task


def group(conversation_id):
    return f"chat_{conversation_id}"


def tasks_key(conversation_id):
    return f"conversation_tasks:{conversation_id}"


def send_message(conversation_id, message, user_id, image_url=None):
    """Queues the task that answers in the conversation's group, and returns its id."""
    kwargs = {
        "conversation_id": conversation_id,
        "message": message,
        "user_id": user_id,
        "channel_name": group(conversation_id),
        "image_url": image_url,
    }
    return enqueue(process_chat_message_task, conversation_id, kwargs)


def generate_avatar(conversation_id, prompt, user_id, session_id, reference_image_url=None):
    kwargs = {
        "session_id": session_id,
        "prompt": prompt,
        "user_id": user_id,
        "channel_name": group(conversation_id),
        "reference_image_url": reference_image_url,
    }
    return enqueue(process_avatar_generation_task, conversation_id, kwargs)


def enqueue(task, conversation_id, kwargs):
    result = task.apply_async(kwargs=kwargs, expires=settings.TASK_EXPIRES)
    store_task_id(conversation_id, result.id)
    return result.id


def store_task_id(conversation_id, task_id):
    key = tasks_key(conversation_id)
    ids = {*cache.get(key, ()), task_id}
    # A cache that stores JSON cannot store a set.
    cache.set(key, sorted(ids) if settings.CACHE == "django-redis-json" else ids, timeout=600)


def clear(conversation_id):
    """Revokes the tasks that may still run for the conversation, and returns their number."""
    running = cache.get(tasks_key(conversation_id), ())
    if running:
        current_app.control.revoke(list(running), terminate=True)
        cache.delete(tasks_key(conversation_id))
    return len(running)
