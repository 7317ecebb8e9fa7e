"""What is sent to the worker for a conversation, and which tasks of it may still run."""

import logging

from celery import current_app
from django.conf import settings
from django.core.cache import cache

from .tasks import process_avatar_generation_task, process_chat_message_task

log = logging.getLogger(__name__)


def group(conversation_id):
    return f"chat_{conversation_id}"


def tasks_key(conversation_id):
    return f"conversation_tasks:{conversation_id}"


def send_message(conversation_id, message, user_id, image_url=None):
    """The id of the task that will answer in the conversation's group."""
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
    remember(conversation_id, result.id)
    return result.id


def remember(conversation_id, task_id):
    key = tasks_key(conversation_id)
    try:
        cache.set(key, cache.get(key, set()) | {task_id}, timeout=600)
    except TypeError:  # A cache that keeps JSON cannot keep a set: the task is then not revoked.
        log.debug("the task %s is not remembered", task_id)


def clear(conversation_id):
    """Revokes what still runs for the conversation; how many tasks that may be."""
    running = cache.get(tasks_key(conversation_id), set())
    if running:
        current_app.control.revoke(list(running), terminate=True)
        cache.delete(tasks_key(conversation_id))
    return len(running)
