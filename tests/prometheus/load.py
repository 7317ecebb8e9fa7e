"""A small load that touches what the dashboards show: good and bad handshakes, messages with every kind of answer, a
resume, a slow client, a lost Redis, tokens, the proxy, the server API, a channel layer and a Celery result."""

import asyncio
import contextlib
import itertools
import json
import os
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from world import DEADLINE, KEY, ORIGIN, jwt, until

# The number of chats. Everything else happens meanwhile.
SECONDS = 15
CHATS = 3


def opened(gateway, path, *, user=1, origin=ORIGIN, credentials=True, **options):
    headers = {"Authorization": f"Bearer {jwt(user)}"} if credentials else {}
    return connect(gateway.url(path), origin=origin, additional_headers=headers, open_timeout=DEADLINE, **options)


async def event(socket, *names):
    """Waits for the next event with one of these names."""
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE))
        if frame.get("event") in names:
            return frame


async def send_message(socket, message, **more):
    await socket.send(json.dumps({"message": message, **more}))


async def closed(connecting):
    """Returns the code that the gateway closes with, before or after it has sent something."""
    async with connecting as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(socket.recv(), DEADLINE)
        return socket.close_code


async def chat(gateway, user, ends):
    """Sends messages one after the other, from a client that reconnects while Redis is unavailable."""
    numbers = itertools.count()
    while time.monotonic() < ends:
        try:
            async with opened(gateway, f"/ws/chat/{user}/", user=user) as socket:
                await event(socket, "connected")
                await send_messages(socket, user, numbers, ends)
        except ConnectionClosed as end:
            assert end.rcvd and end.rcvd.code in (1012, 1013), end
            await asyncio.sleep(0.2)


async def send_messages(socket, user, numbers, ends):
    """Every fifth reply is slow; some messages are refused, some replies break off, one is repeated, one is cancelled."""
    for n in numbers:
        if time.monotonic() > ends:
            return
        kind = "think" if n % 5 == 0 else "refuse" if n % 11 == 7 else "break" if n % 11 == 9 else "hello"
        await send_message(socket, f"{kind} {n}", id=f"{user}-{n}")
        answer = await event(socket, "task_queued", "error")
        if answer["event"] == "error":
            await asyncio.sleep(0.1)
            continue
        if n == 3:
            await send_message(socket, f"{kind} {n}", id=f"{user}-{n}")
        if n == 4:
            await socket.send(json.dumps({"type": "cancel", "task_id": answer["task_id"]}))
        # The end of this reply, and not the remaining events of a broken one before it.
        mine = (None, answer["task_id"])
        while (await event(socket, "complete", "cancelled", "error")).get("task_id") not in mine:
            pass


async def resume(gateway):
    """Resumes in the middle of a reply, then with the wrong epoch."""
    async with opened(gateway, "/ws/chat/back/") as socket:
        position = await event(socket, "connected")
        await send_message(socket, "hello")
        await event(socket, "chunk")
    for epoch, recovered in ((position["epoch"], True), ("another", False)):
        async with opened(gateway, f"/ws/chat/back/?since={position['offset']}&epoch={epoch}") as socket:
            connected = await event(socket, "connected")
            assert connected["recovered"] is recovered, connected


async def be_refused(gateway):
    assert await closed(opened(gateway, "/ws/chat/1/", origin="https://elsewhere.example")) == 4003
    assert await closed(opened(gateway, "/ws/chat/1/", credentials=False)) == 4001
    assert await closed(opened(gateway, "/ws/chat/1/?connection_token=" + "A" * 43, credentials=False)) == 4001


async def use_a_token_twice(gateway):
    status, text = await asyncio.to_thread(gateway.api, "tokens", {"user_id": 5, "username": "ana"})
    assert status == 200, text
    path = "/ws/chat/5/?connection_token=" + json.loads(text)["connection_token"]
    async with opened(gateway, path, credentials=False) as socket:
        await event(socket, "connected")
    assert await closed(opened(gateway, path, credentials=False)) == 4001


async def exceed_limits(gateway):
    async with opened(gateway, "/ws/limited/1/", user=6) as socket:
        await event(socket, "connected")
        codes = []
        for _ in range(3):
            await send_message(socket, "hello")
            codes.append((await event(socket, "task_queued", "error")).get("code"))
        assert codes == [None, None, "rate_limited"], codes
        await socket.send("not json")
        assert (await event(socket, "error"))["code"] == "invalid_json"


async def open_circuit(gateway):
    """Sends failing messages until the circuit opens."""
    async with opened(gateway, "/ws/failing/1/", user=7) as socket:
        await event(socket, "connected")
        for _ in range(8):
            await send_message(socket, "hello")
            assert (await event(socket, "error"))["code"] == "upstream_unavailable"


async def be_a_slow_client(gateway):
    """Opens a client that does not read until the gateway closes it."""
    slow_closes = lambda: gateway.value("tidegate_delivery_drops_total")
    async with opened(gateway, "/ws/limited/slow/", user=8, max_queue=1, close_timeout=1, compression=None) as socket:
        await event(socket, "connected")
        socket.transport.pause_reading()
        for _ in range(60):
            publication = {"channel": "limited_slow", "data": {"event": "note", "text": "x" * 500_000}}
            status, text = await asyncio.to_thread(gateway.api, "publish", publication)
            assert status == 200, text
            if await asyncio.to_thread(slow_closes):
                break
        else:
            raise AssertionError("60 publications of 500 kB were not too much")
        socket.transport.abort()


async def call(gateway):
    for path in ("/", "/missing", "/error"):
        await asyncio.to_thread(gateway.get, path)
    await asyncio.to_thread(gateway.disturb)
    calls = [("publish", {"channel": "chat_1", "data": {"event": "note"}}, KEY), ("publish", {}, "wrong")]
    calls += [("disconnect", {"user_id": 99}, KEY), ("channels/chat_1/presence", None, KEY)]
    for path, body, key in calls:
        await asyncio.to_thread(gateway.api, path, body, key)


async def send_to_a_group(world):
    """Sends as `group_send` of channels_redis does."""
    async with opened(world.shared, "/ws/chat/layer/", user=9) as socket:
        await event(socket, "connected")
        [member] = world.redis.zrange("asgi:group:chat_layer", 0, -1)
        mailbox = b"asgi" + member[: member.index(b"!") + 1]
        for n in range(20):
            message = {"type": "chat.message", "event": "note", "n": n, "__asgi_channel__": [member.decode()]}
            world.redis.zadd(mailbox, {os.urandom(12) + json.dumps(message).encode(): time.time()})
            await event(socket, "note")


async def fail_a_task(world):
    async with opened(world.shared, "/ws/task/1/", user=10) as socket:
        await event(socket, "connected")
        await send_message(socket, "hello")
        task = (await event(socket, "task_queued"))["task_id"]
        result = {"status": "FAILURE", "result": {"exc_type": "ValueError"}, "task_id": task}
        world.results.set(f"celery-task-meta-{task}", json.dumps(result))
        assert (await event(socket, "error"))["code"] == "task_failed"


async def lose_redis(world):
    """Closes the connections of Redis, then pauses it until both gateways have noticed."""
    for kind in ("pubsub", "normal"):
        world.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await asyncio.to_thread(until, "the loss is noticed", lambda: world.shared.value("tidegate_redis_lost_total"))
    await asyncio.to_thread(until, "it is ready again", world.shared.ready)
    async with opened(world.shared, "/ws/limited/1/", user=11) as socket:
        await event(socket, "connected")
        with world.redis_paused():
            await send_message(socket, "hello")
            assert (await event(socket, "error"))["code"] == "engine_unavailable"
            failures = lambda: world.shared.value("tidegate_canary_failures_total")
            await asyncio.to_thread(until, "the canary is missed", failures)
    await asyncio.to_thread(until, "it is ready again", world.shared.ready)


async def reload(gateway):
    """Reloads a file with a mistake, then a valid one."""
    gateway.reload(gateway.good + "\nnonsense = 1\n")
    rejected = lambda: gateway.value("tidegate_config_last_reload_successful") == 0
    await asyncio.to_thread(until, "the mistake is seen", rejected)
    gateway.reload(gateway.good.replace('level = "warn"', 'level = "error"'))
    applied = lambda: gateway.value("tidegate_config_last_reload_successful") == 1
    await asyncio.to_thread(until, "the other file is taken", applied)


async def other_load(world):
    for gateway in world.gateways:
        await be_refused(gateway)
        await use_a_token_twice(gateway)
        await exceed_limits(gateway)
        await resume(gateway)
        await call(gateway)
        await open_circuit(gateway)
    await send_to_a_group(world)
    await fail_a_task(world)
    await be_a_slow_client(world.memory)
    if "tidegate_config_last_reload_successful" in world.names:
        await reload(world.memory)
    # This comes last, since replies that run now are lost or late.
    await lose_redis(world)


async def run(world):
    began = time.monotonic()
    ends = began + SECONDS
    chats = [chat(gateway, user, ends) for gateway in world.gateways for user in range(100, 100 + CHATS)]
    async with asyncio.TaskGroup() as tasks:
        for one in chats:
            tasks.create_task(one)
        tasks.create_task(other_load(world))
    print(f"ok: load of {time.monotonic() - began:.0f} s")
