"""What a browser receives when a task or its worker fails, and how it can cancel a running task."""

import os
import re
import signal
import time

from people import events, text, until

CANCEL_DEADLINE = 5


def wait_for_sleep(process, after=0):
    """Waits for the process that runs a /sleep, and returns its id; `after` is the length of the log before."""
    found = until(lambda: re.search(r"sleeping in process (\d+)", process.read_log()[after:]), "a task sleeps")
    return int(found[1])


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def error_of(frames):
    """The error that ends a reply."""
    assert events(frames)[-1] == "error" and "error" not in events(frames)[:-1], frames
    return frames[-1]


def test_a_task_that_raises(world):
    person = world.person()
    with person.chat(world.gateway_url, "raises") as chat, person.chat(world.gateway_url, "raises") as tab:
        queued = chat.queue("/fail")
        for each in (chat, tab):
            frames = each.reply()
            error = error_of(frames)
            assert events(frames) == ["processing_started", "error"], frames
            assert error["task_id"] == queued["task_id"], error
            # Details of the failure are not shown to browsers.
            assert "the model said no" not in str(error), error
        # The conversation continues.
        chat.queue("/words 1")
        assert events(chat.reply())[-1] == "completed"


def test_a_task_that_no_worker_knows(world):
    person = world.person()
    unknown = {'task = "chat.tasks.process_chat_message_task"': 'task = "chat.tasks.no_such_task"'}
    with world.another_gateway(unknown) as gateway, person.chat(gateway.url, "unknown") as chat:
        queued = chat.queue("hello")
        assert error_of(chat.reply())["task_id"] == queued["task_id"]


def test_a_task_that_expires_in_its_queue(world):
    person = world.person()
    idle = {'queue = "celery"': 'queue = "idle"', 'expires = "600s"': 'expires = "1s"'}
    with world.another_gateway(idle) as gateway, person.chat(gateway.url, "expires") as chat:
        queued = chat.queue("hello")
        expired = time.monotonic() + 1
        until(lambda: time.monotonic() > expired, "its time passes")
        worker = world.stack.worker("late", queue="idle")
        try:
            frames = chat.reply()
        finally:
            world.stack.stop(worker)
        # It was not run.
        assert events(frames) == ["error"] and frames[0]["task_id"] == queued["task_id"], frames


def test_a_worker_whose_child_is_killed(world):
    person = world.person()
    with person.chat(world.gateway_url, "child") as chat:
        before = len(world.worker.read_log())
        queued = chat.queue("/sleep 600")
        os.kill(wait_for_sleep(world.worker, before), signal.SIGKILL)
        assert error_of(chat.reply())["task_id"] == queued["task_id"]
        # The worker has started another child.
        chat.queue("/words 1")
        assert events(chat.reply())[-1] == "completed"


def test_a_worker_that_is_killed(world):
    person = world.person()
    doomed = {
        'queue = "celery"': 'queue = "doomed"',
        'reply_idle_timeout = "5m"': 'reply_idle_timeout = "2s"',
    }
    worker = world.stack.worker("doomed", queue="doomed", concurrency=1)
    with world.another_gateway(doomed) as gateway, person.chat(gateway.url, "killed-worker") as chat:
        queued = chat.queue("/sleep 600")
        wait_for_sleep(worker)
        worker.kill_group()
        world.stack.stop(worker)
        error = error_of(chat.reply())
        assert (error["code"], error["task_id"]) == ("worker_lost", queued["task_id"]), error


def test_cancel_ends_the_child_that_runs_the_task(world):
    person = world.person()
    with person.chat(world.gateway_url, "cancel") as chat, person.chat(world.gateway_url, "cancel") as tab:
        before = len(world.worker.read_log())
        queued = chat.queue("/sleep 600")
        child = wait_for_sleep(world.worker, before)
        # This is another tab than the one that sent the message.
        tab.send({"type": "cancel", "task_id": queued["task_id"]})
        for each in (chat, tab):
            frames = each.reply("cancelled")
            assert events(frames) == ["processing_started", "cancelled"], frames
            assert frames[-1]["task_id"] == queued["task_id"], frames
        until(lambda: not is_alive(child), "the child ends", CANCEL_DEADLINE)
        chat.queue("/words 1")
        assert events(chat.reply())[-1] == "completed"


def test_what_the_backend_revokes_is_told(world):
    """The REST API revokes the tasks that the gateway has added to the conversation's set in the cache."""
    person = world.person()
    with person.chat(world.gateway_url, "cleared") as chat:
        before = len(world.worker.read_log())
        queued = chat.queue("/sleep 600")
        child = wait_for_sleep(world.worker, before)
        answer = person.request(f"{world.daphne_url}/api/v1/chat/cleared/clear/", {})
        assert answer.json == {"revoked": 1}, answer
        until(lambda: not is_alive(child), "the child ends", CANCEL_DEADLINE)
        frames = chat.reply("cancelled", "error")
        assert frames[-1]["task_id"] == queued["task_id"], frames


def test_a_broker_that_is_gone(world):
    person = world.person()
    unreachable = {'broker_url = "${REDIS_URL}/0"': 'broker_url = "redis://127.0.0.1:1/0"'}
    # Without its broker it is not ready.
    with world.another_gateway(unreachable, "/livez") as gateway, person.chat(gateway.url, "broker") as chat:
        assert chat.send_message("hello")["code"] == "upstream_unavailable"
        chat.expect_nothing()
