"""Settings that differ from the backend's: the task runs, its events do not arrive, and the gateway's log says so."""

import contextlib

from people import events, until

# By name: the replaced lines, and what the warning must name. A database matters to the core layer only.
WRONG = {
    "types": ({'types = ["chat.message"]': 'types = ["chat.messages"]'}, "types"),
    "prefix": ({'prefix = "asgi"': 'prefix = "asgl"'}, "prefix"),
    "database": ({'hosts = ["${REDIS_URL}/3"]': 'hosts = ["${REDIS_URL}/4"]'}, "hosts"),
    "channel": ({'channel = "chat_{conversation_id}"': 'channel = "chats_{conversation_id}"'}, "route's channel"),
    "wire": ({}, "wire"),
}
OTHER_WIRE = {"core": "channels-pubsub", "pubsub": "channels-core"}


def warning(gateway, outcome):
    lines = gateway.read_log().splitlines()
    found = [line for line in lines if 'event="reply_unheard"' in line and f'outcome="{outcome}"' in line]
    assert len(found) <= 1, found
    return found[0] if found else ""


def test_events_that_go_elsewhere_are_noticed(world):
    wrong = {name: value for name, value in WRONG.items() if (world.layer, name) != ("pubsub", "database")}
    with contextlib.ExitStack() as running:
        chats = {}
        for name, (replaced, _) in wrong.items():
            # A task that is told another group than the one that the gateway joins.
            told = {'channel_name = "{channel}"': 'channel_name = "chat_{conversation_id}"'} if name == "channel" else {}
            wire = {"CHANNELS_WIRE": OTHER_WIRE[world.layer]} if name == "wire" else {}
            gateway = running.enter_context(world.another_gateway({**replaced, **told}, **wire))
            # One user may have four replies at a time.
            chat = running.enter_context(world.person().chat(gateway.url, f"silent-{name}"))
            chats[name] = (gateway, chat, chat.queue("/words 3"))
        for name, (gateway, chat, queued) in chats.items():
            frames = chat.reply()
            assert events(frames) == ["complete"] and frames[0]["task_id"] == queued["task_id"], (name, frames)
            line = until(lambda: warning(gateway, "succeeded"), f"a warning for {name}")
            assert wrong[name][1] in line and queued["task_id"] in line, line
            chat.expect_nothing()
        log = chats["types"][0].read_log()
        assert 'event="layer_type_not_forwarded" message_type="chat.message"' in log, log[-2000:]


def test_a_reply_that_is_heard_is_not_reported(world):
    person = world.person()
    with person.chat(world.gateway_url, "heard") as chat:
        chat.queue("/words 3")
        chat.reply()
        chat.queue("/fail")
        chat.reply()
    assert "reply_unheard" not in world.gateway.read_log()


def test_a_queue_that_no_worker_takes_from_is_noticed(world):
    if world.layer != "core":
        return
    person = world.person()
    soon = {"[route.generations]": '[route.generations]\nfirst_event_warning = "500ms"'}
    cases = {
        "queue": ({'queue = "celery"': 'queue = "nobodys"'}, 'queue="nobodys" waiting=1 consumers=0'),
        # This one is taken; its events are of another type.
        "taken": ({'types = ["chat.message"]': 'types = ["other"]'}, 'queue="celery" waiting=0 consumers=1'),
        "broker": ({'broker_url = "${REDIS_URL}/0"': 'broker_url = "${REDIS_URL}/9"'}, 'queue="celery" waiting=1 consumers=0'),
    }
    for name, (replaced, expected) in cases.items():
        with world.another_gateway({**soon, **replaced}) as gateway, person.chat(gateway.url, name) as chat:
            chat.queue("/sleep 2")
            line = until(lambda: warning(gateway, "running"), "a warning")
            assert expected in line, line
