"""What must hold on each channel layer: who receives what is sent to a group, and what remains in Redis."""

import contextlib
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from people import DEADLINE, events, text, until
from stack import HERE as EXAMPLE

PUBLISH = Path(__file__).with_name("publish.py")
FLOOD = 10_000
BESIDE = 1_000
# Slow enough for a busy machine, since this test is about the client that does not read.
FLOOD_RATE = 1_500
CAPACITY = 1500


def group_send(world, conversation, *messages):
    """Sends to the conversation's group as a task does."""
    program = (
        "import pickle, sys; from asgiref.sync import async_to_sync; from channels.layers import get_channel_layer\n"
        "for message in pickle.load(sys.stdin.buffer):\n"
        f"    async_to_sync(get_channel_layer().group_send)('chat_{conversation}', message)"
    )
    environment = {**world.environment(), "DJANGO_SETTINGS_MODULE": "backend.settings"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=EXAMPLE, env=environment, input=pickle.dumps(messages), check=True)


def members(world, conversation):
    """How many receive the group: members of the layer's set, or subscriptions."""
    if world.layer == "core":
        return world.redis(3).zcard(f"asgi:group:chat_{conversation}")
    channel = f"asgi__group__chat_{conversation}"
    return world.redis(3).pubsub_numsub(channel)[0][1]


def test_everybody_in_a_conversation_gets_the_reply(world):
    ann, bob = world.person(), world.person()
    with (
        ann.chat(world.gateway_url, "all") as one,
        ann.chat(world.gateway_url, "all") as other,
        bob.chat(world.gateway_url, "all") as third,
        # During a migration some of the conversation's sockets are still served by Daphne.
        bob.chat(world.daphne_url, "all") as direct,
        ann.chat(world.gateway_url, "elsewhere") as elsewhere,
    ):
        one.queue("/words 20")
        replies = [chat.reply() for chat in (one, other, third, direct)]
        for reply in replies:
            assert events(reply) == ["processing_started", *["chunk"] * 20, "completed"], reply
            assert text(reply) == "".join(f"word{number} " for number in range(20))
        elsewhere.expect_nothing()


def test_a_layer_of_another_shape(world):
    """Other settings of the backend's CHANNEL_LAYERS: encryption, another prefix, JSON."""
    layer_class = {"core": "core.RedisChannelLayer", "pubsub": "pubsub.RedisPubSubChannelLayer"}[world.layer]
    module, name = layer_class.split(".")
    for serializer in ("msgpack", "json"):
        shape = {
            'prefix = "asgi"': f'prefix = "other"\nserializer = "{serializer}"\n'
            'symmetric_encryption_keys = ["of tomorrow", "sekrit"]',
        }
        config = {
            "hosts": [f"{world.stack.redis_url}/3"],
            "prefix": "other",
            "serializer_format": serializer,
            "symmetric_encryption_keys": ["sekrit"],
        }
        program = (
            f"import asyncio; from channels_redis.{module} import {name}\n"
            "async def send():\n"
            f"    layer = {name}(**{config!r})\n"
            "    await layer.group_send('chat_shape', {'type': 'chat.message', 'event': 'chunk', 'chunk': 'é 🚀'})\n"
            "asyncio.run(send())"
        )
        person = world.person()
        with world.another_gateway(shape) as gateway, person.chat(gateway.url, "shape") as chat:
            subprocess.run([sys.executable, "-c", program], check=True)
            frame = chat.receive()
            assert (frame["type"], frame["chunk"]) == ("chat.message", "é 🚀"), frame


def test_what_the_consumer_cannot_send_closes_nothing(world):
    person = world.person()
    with person.chat(world.gateway_url, "odd") as chat:
        group_send(
            world,
            "odd",
            {"type": "battle.event", "event": "not for the chat"},
            {"type": "chat.message", "event": "bytes", "data": b"\xff\x00"},
            {"type": "chat.message", "event": "number", "value": float("inf")},
            {"type": "chat.message", "event": "deep", "value": {"a": [{"b": [[["c"]]]}]}},
            {"type": "chat.message", "event": "last"},
        )
        frames = chat.reply("last")
    assert "not for the chat" not in events(frames), frames
    assert frames[-2]["value"] == {"a": [{"b": [[["c"]]]}]}, frames
    assert all(frame["type"] == "chat.message" for frame in frames), frames


def stalled(person, url, conversation):
    """Opens a socket that takes almost nothing from the network until it is read."""
    address = url.removeprefix("http://").split(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((address[0], int(address[1])))
    token = person.token(url, conversation)
    return person.socket(url, conversation, connection_token=token, sock=narrow, max_queue=1)


class Reader(threading.Thread):
    """Reads all messages to the end; `numbers` are those that arrived."""

    def __init__(self, chat, expected):
        super().__init__(daemon=True)
        self.chat, self.expected, self.numbers = chat, expected, []
        self.start()

    def run(self):
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            while len(self.numbers) < self.expected:
                self.numbers.append(self.chat.receive()["number"])


def test_a_client_that_does_not_read_costs_the_others_nothing(world):
    person, before = world.person(), len(world.gateway.read_log())
    with contextlib.ExitStack() as open_sockets:
        # One client is in the same conversation, and one in another that is served by the same mailbox.
        counts = {"flood": FLOOD, "beside": BESIDE}
        chats = {name: open_sockets.enter_context(person.chat(world.gateway_url, name)) for name in counts}
        slow = stalled(person, world.gateway_url, "flood")
        # Close without a closing handshake, for which the client would have to read.
        open_sockets.callback(slow.socket.close)
        assert json.loads(slow.recv(timeout=DEADLINE))["event"] == "connected"
        readers = [Reader(chats[name], count) for name, count in counts.items()]
        producers = [
            subprocess.Popen(
                [sys.executable, PUBLISH, f"chat_{name}", str(count), str(count * FLOOD_RATE // FLOOD)],
                cwd=EXAMPLE,
                env={**world.environment(), "PYTHONPATH": str(EXAMPLE)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, count in counts.items()
        ]
        fullest = watch_mailboxes(world, producers)
        errors = "".join(producer.communicate()[1] for producer in producers)
        assert [producer.returncode for producer in producers] == [0, 0], errors
        assert "over capacity" not in errors, errors
        assert fullest < CAPACITY, fullest
        for reader in readers:
            reader.join(DEADLINE)
            found = f"{len(reader.numbers)} of {reader.expected}"
            assert reader.numbers == list(range(reader.expected)), found
        # The gateway closes whether or not the client reads.
        until(lambda: 'reason="too_slow"' in world.gateway.read_log()[before:], "the slow one is closed")


def watch_mailboxes(world, producers):
    """Returns the largest number of messages in any mailbox while the producers ran, or none without mailboxes."""
    redis, fullest = world.redis(3), 0
    while any(producer.poll() is None for producer in producers):
        for key in redis.scan_iter("asgispecific.*"):
            fullest = max(fullest, redis.zcard(key))
    return fullest


def test_a_conversation_that_all_have_left_is_left(world):
    """The gateway leaves a group when its history has expired and nobody can resume any more."""
    person = world.person()
    short = {"[route.limits]": '[route.history]\nttl = "1s"\n[route.limits]'}
    with world.another_gateway(short) as gateway:
        with person.chat(gateway.url, "left"), person.chat(gateway.url, "left"):
            assert members(world, "left") == 1
        until(lambda: members(world, "left") == 0, "the gateway leaves the group")


def test_a_gateway_that_stops_leaves_its_groups_to_another(world):
    person, redis = world.person(), world.redis(3)
    mailboxes = lambda: {*redis.scan_iter("asgispecific.*"), *redis.scan_iter("asgitaken.*")}
    names = lambda: redis.zrange("asgi:group:chat_stopped", 0, -1)
    before = mailboxes()
    with world.another_gateway(TIDEGATE__SHUTDOWN__DRAIN="0s") as gateway:
        with person.chat(gateway.url, "stopped") as chat:
            assert members(world, "stopped") == 1
            member = names()
            group_send(world, "stopped", {"type": "chat.message", "event": "last"})
            assert events(chat.reply("last")) == ["last"]
            assert world.stack.stop(gateway) == 0
            assert members(world, "stopped") == 1
            assert not set(member) & set(names())
            assert mailboxes() <= before


def test_a_gateway_that_was_killed_is_replaced(world):
    person = world.person()
    nodes = lambda: world.redis(2).zcard("tg:layer:nodes")
    with world.another_gateway() as gateway, person.chat(gateway.url, "killed"):
        count = nodes()
        world.stack.stop(gateway, signal.SIGKILL)
    if world.layer == "pubsub":
        # Nobody has the messages that come before the death is noticed, so clients are told and have to come back.
        until(lambda: nodes() < count, "a death that is noticed")
    with world.another_gateway() as gateway, person.chat(gateway.url, "killed") as chat:
        chat.queue("/words 5")
        assert events(chat.reply()) == ["processing_started", *["chunk"] * 5, "completed"]


def test_a_reply_that_was_cut_is_whole(world):
    person = world.person()
    with person.chat(world.gateway_url, "cut") as chat:
        position = {"epoch": chat.connected["epoch"]}
        chat.queue("/words 300")
        frames = [chat.receive() for _ in range(20)]
        # There is no close frame and no `going_away`.
        chat.socket.socket.shutdown(socket.SHUT_RDWR)
    position["since"] = frames[-1]["offset"]
    token = person.token(world.gateway_url, "cut")
    with person.chat(world.gateway_url, "cut", connection_token=token, **position) as chat:
        assert chat.connected["recovered"] is True, chat.connected
        frames += chat.reply()
        chat.expect_nothing()
    assert events(frames) == ["processing_started", *["chunk"] * 300, "completed"], events(frames)
    assert text(frames) == "".join(f"word{number} " for number in range(300))
    offsets = [frame["offset"] for frame in frames]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), offsets
