"""The rounds: in each, several conversations have a reply while nodes stop or die."""

import asyncio
import itertools
import signal
import time

from client import RETURNS, Client, until
from verdict import ENDS, AfterTheEnd, Verdict

# Which clients a conversation has, by their nodes: "v" is the next victim, "o" another, "l" a client that comes to any
# node during the reply, without `since`. The first one sends the message, the order is that of connecting.
KINDS = ("v", "vo", "ov", "vv", "voo", "o", "vl", "ol", "vol")
FIELDS = ("plain", "task_id")
LAST_EVENTS = ("completed", "completed", "none")
# After a kill, replies are tracked again within twelve seconds.
SETTLE_DEADLINE = 40
# The effects of so many events are awaited together, which takes as long as for one.
BATCH = 7
users = itertools.count(1)


class Conversation:
    def __init__(self, chosen, cluster, name, kind, victim, random):
        self.cluster, self.name, self.kind, self.random = cluster, name, kind, random
        self.chunks, self.user = chosen.chunks, next(users)
        self.message = f"paced {chosen.chunks} {chosen.pause} {random.choice(FIELDS)} {random.choice(LAST_EVENTS)}"
        self.length = chosen.chunks * chosen.pause
        self.returns = [chosen.returns] if chosen.returns else RETURNS
        others = [node for node in cluster.running() if node is not victim]
        self.homes = [victim if place == "v" else random.choice(others) for place in kind.replace("l", "")]
        self.clients, self.afterwards, self.ended_at = [], None, None

    def add(self, home, note=""):
        returns = self.random.choice(self.returns)
        name = f"{self.name}/{len(self.clients)}{note} ({self.kind}, {returns})"
        client = Client(name, self.cluster, self.name, self.user, home, returns, self.random)
        self.clients.append(client)
        return client

    async def begin(self):
        """Connects the clients and sends the message. Returns when the task is queued."""
        for home in self.homes:
            client = self.add(home)
            await until(lambda: client.socket, f"{client.name} connects")
        sender = self.clients[0]
        await sender.send({"message": self.message})
        queued = await until(lambda: sender.events.get("task_queued"), f"{sender.name}: task_queued")
        self.task_id = queued["task_id"]

    async def finish(self):
        """Lets late clients come, and returns when the reply has ended for one of the clients."""
        for _ in range(self.kind.count("l")):
            await asyncio.sleep(self.random.uniform(0, self.length * 0.8))
            self.add(None, "-late")
        ended = lambda: self.cluster.ended_at(self.task_id)
        self.ended_at = await until(ended, f"the worker ends the reply of {self.name}", self.length + 30)
        self.ended = asyncio.create_task(self.come_after_the_end())

    async def come_after_the_end(self):
        has_ended = lambda: any(client.has(*ENDS) for client in self.clients)
        try:
            await until(has_ended, "the end", SETTLE_DEADLINE)
        except AssertionError:
            return
        returns = self.random.choice(self.returns)
        name = f"{self.name}/afterwards ({self.kind}, {returns})"
        self.afterwards = Client(name, self.cluster, self.name, self.user, None, returns, self.random)

    def everybody(self):
        return self.clients + ([self.afterwards] if self.afterwards else [])

    def is_heard_elsewhere(self):
        """Whether a node other than the victim heard the channel from the beginning."""
        return "o" in self.kind

    async def mark(self):
        marker = {"type": "chat.message", "event": "marker"}
        await self.cluster.channel_layer.group_send(f"chat_{self.name}", marker)

    def verdicts(self):
        for client in self.clients:
            yield client, Verdict(client.log, self.chunks, self.ended_at)
        if self.afterwards:
            yield self.afterwards, AfterTheEnd(self.afterwards.log)


class Round:
    """One event and the conversations whose replies see it."""

    def __init__(self, number, event, victim, nodes):
        self.number, self.event, self.victim, self.nodes = number, event, victim, nodes
        self.conversations, self.killed_at = [], None

    async def run(self, chosen, cluster, random):
        kinds = [chosen.clients] if chosen.clients else KINDS
        self.conversations = [
            Conversation(chosen, cluster, f"{self.event}{self.number}-{count}", kinds[count % len(kinds)],
                         self.victim, random)
            for count in range(chosen.conversations)
        ]
        await asyncio.gather(*(conversation.begin() for conversation in self.conversations))
        finished = asyncio.gather(*(conversation.finish() for conversation in self.conversations))
        length = chosen.chunks * chosen.pause
        if self.event == "kill":
            await asyncio.sleep(random.uniform(0, length * 0.9))
            self.killed_at = time.time()
            await cluster.stop(self.victim, signal.SIGKILL)
        elif self.event == "replace":
            await asyncio.sleep(random.uniform(0, length * 0.3))
            await self.replace_all(cluster, random)
        await finished
        if self.event == "kill":
            await cluster.start(self.victim)

    async def replace_all(self, cluster, random):
        """Replaces all nodes one after the other, the victim first."""
        others = [node for node in cluster.running() if node is not self.victim]
        random.shuffle(others)
        for node in [self.victim, *others]:
            await cluster.stop(node)
            await cluster.start(node)


def plan(cluster, chosen):
    """Yields (event, victim, number of nodes): each of three nodes is killed, then each of two, and so on."""
    kills = itertools.cycle([(3, 0), (3, 1), (3, 2), (2, 0), (2, 1)])
    for number, (nodes, victim) in enumerate(itertools.islice(kills, chosen.rounds)):
        if number % 5 in (0, 3) and chosen.only in (None, "replace"):
            yield "replace", cluster.nodes[number // 5 % nodes], nodes
        if chosen.only != "replace":
            yield chosen.only or "kill", cluster.nodes[victim], nodes


async def run(chosen, layer, directory, random, report):
    from cluster import Cluster

    folder = directory / layer
    folder.mkdir(exist_ok=True)
    async with Cluster(chosen.binary, folder, layer, 3, chosen.log_level, random) as cluster:
        rounds = []
        for number, (event, victim, nodes) in enumerate(plan(cluster, chosen), start=1):
            await resize(cluster, nodes)
            rounds.append(Round(number, event, victim, nodes))
            await rounds[-1].run(chosen, cluster, random)
            if chosen.isolated or number % BATCH == 0:
                await settle(cluster, rounds, report)
                rounds = []
        await settle(cluster, rounds, report)


async def resize(cluster, nodes):
    for number, node in enumerate(cluster.nodes):
        if number < nodes and not node.process:
            await cluster.start(node)
        elif number >= nodes and node.process:
            await cluster.stop(node)


async def settle(cluster, rounds, report):
    """Waits until nothing more can come, sends a marker to each conversation and waits for it, then judges."""
    conversations = [conversation for each in rounds for conversation in each.conversations]
    for conversation in conversations:
        await conversation.ended
    try:
        await until(cluster.has_settled, "no reply is tracked any more", SETTLE_DEADLINE)
    except AssertionError as error:
        cluster.note(str(error))
    cluster.note("settled")
    clients = [client for conversation in conversations for client in conversation.everybody()]
    await until(lambda: all(client.socket for client in clients), "all clients are connected")
    await asyncio.gather(*(conversation.mark() for conversation in conversations))
    try:
        await until(lambda: all(client.has("marker") for client in clients), "all clients have the marker", 10)
    except AssertionError:
        # Each client without it is a failure of its own.
        pass
    await asyncio.gather(*(client.close() for client in clients))
    report.add(cluster, rounds)
