"""The faults: each happens, lasts for a while and ends. What must recover by itself is waited for by the caller."""

import asyncio
import random
import signal

from world import CHANNELS, World, until, write_certificate

# How long a fault lasts, in seconds.
LASTS = 4


async def not_ready(world: World) -> None:
    for node in world.nodes:
        async def is_not_ready(node=node) -> bool:
            return not await node.is_ready()

        await until(is_not_ready, f"{node.name} notices")


async def redis_restarts(world: World) -> None:
    world.primary.kill()
    await asyncio.sleep(LASTS)
    await world.primary.start()


async def redis_is_paused(world: World) -> None:
    world.primary.signal(signal.SIGSTOP)
    await not_ready(world)
    world.primary.signal(signal.SIGCONT)


async def redis_fails_over(world: World) -> None:
    old, new = world.primary, world.replica
    # Redis replicates after it has answered, so what is published while servers change roles could be lost by Redis itself.
    # Nobody could tell clients about that: here everything published is on both.
    for _ in range(CHANNELS):
        await world.publishing.acquire()
    await old.run("SET", "last", 1)
    await old.run("WAIT", 1, 10_000)
    await new.run("REPLICAOF", "NO", "ONE")
    world.primary, world.replica, world.address.to = new, old, new
    await old.follow(new)
    for _ in range(CHANNELS):
        world.publishing.release()


async def redis_is_not_heard(world: World) -> None:
    world.address.drops = "from Redis"
    await not_ready(world)
    world.address.drops = None


async def redis_hears_nothing(world: World) -> None:
    world.address.drops = "to Redis"
    await not_ready(world)
    world.address.drops = None


async def connections_to_redis_are_cut(world: World) -> None:
    for _ in range(5):
        world.address.cut()
        await asyncio.sleep(0.3)


async def configs_are_reloaded(world: World) -> None:
    for node in world.nodes:
        node.write_config(random.randrange(100, 300))
        before = len(node.lines("config_reloaded"))
        node.signal(signal.SIGHUP)
        await until(lambda: len(node.lines("config_reloaded")) > before, f"{node.name} reloads")


async def certificates_are_renewed(world: World) -> None:
    before = await world.nodes[0].certificate()
    write_certificate(world.folder)
    for node in world.nodes:
        async def has_changed(node=node) -> bool:
            return await node.certificate() != before

        await until(has_changed, f"{node.name} has the new certificate")


async def a_node_is_paused(world: World) -> None:
    node = random.choice(world.nodes)
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(LASTS)
    node.signal(signal.SIGCONT)


FAULTS = [redis_restarts, redis_is_paused, redis_fails_over, redis_is_not_heard, redis_hears_nothing,
          connections_to_redis_are_cut, configs_are_reloaded, certificates_are_renewed, a_node_is_paused]
