"""What is measured: each scenario names a job, what the generator does, and what its result means."""

import dataclasses
import resource

TOO_MANY_GROUPS = "thousands of groups take too long to check"
# Descriptors that a process needs beside its clients' sockets. The gateway reserves a quarter of its limit, but not more
# than this.
RESERVED, SPARE = 4096, 100
SLOW = "it delivers about 3,000 a second, so one publication to 10,000 clients takes seconds"


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    group: str
    title: str
    job: str
    # The generator's command and its options.
    command: str
    options: dict
    # The member of the result that is compared, and whether less of it is better.
    value: str = "per_second"
    less: bool = False
    # Part of the short form.
    short: bool = False
    # Options of the short form in place of the others.
    short_options: dict = dataclasses.field(default_factory=dict)
    # Servers that cannot take part, with the reason.
    without: dict = dataclasses.field(default_factory=dict)
    # Only these servers.
    only: tuple = ()
    # Counts that the server is started for.
    size: dict = dataclasses.field(default_factory=dict)

    def reason(self, server):
        """Returns why a server does not take part, or None."""
        if self.only and server.name not in self.only:
            return "it is measured elsewhere"
        return self.without.get(server.name) or server.reason(self.job)


GROUPS = {
    "fan-out": "Fan-out to one channel",
    "channels": "Many channels",
    "latency": "Latency",
    "relay": "Relay of messages",
    "connections": "Connections",
    "fairness": "Fairness",
    "bounds": "Bounds of the machine",
}


def file_limit():
    """Raises the limit of open files as far as it goes, for this process and those that it starts, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_clients():
    """Returns how many clients one process can have."""
    limit = file_limit()
    return limit - min(limit // 4, RESERVED) - SPARE


def everything():
    idle = min(20_000, most_clients()) // 2 * 2
    f1k = {"channels": 1, "subscribers": 1_000, "bytes": 256}
    f10k = {**f1k, "subscribers": 10_000}
    m1k = {"channels": 1_000, "subscribers": 1, "bytes": 100}
    slow = {"daphne": SLOW, "uvicorn": SLOW}
    found = [
        Scenario("f1k-http", "fan-out", "F1k by HTTP, 16 under way", "publish", "publish",
                 {**f1k, "via": "http", "under-way": 16}, short=True),
        Scenario("f1k-redis", "fan-out", "F1k by Redis `PUBLISH`, 16 under way", "redis", "publish",
                 {**f1k, "via": "redis", "under-way": 16}, short=True),
        Scenario("f1k-batch", "fan-out", "F1k, 64 a call", "batch", "publish",
                 {**f1k, "via": "http", "under-way": 2, "burst": 64}, short=True),
        Scenario("f1k-redis-batch", "fan-out", "F1k, 64 a call, through Redis", "redis-batch", "publish",
                 {**f1k, "via": "http", "under-way": 2, "burst": 64}),
        Scenario("f10k-4", "fan-out", "F10k by HTTP, 4 under way", "publish", "publish",
                 {**f10k, "via": "http", "under-way": 4}, without=slow),
        Scenario("f10k-16", "fan-out", "F10k by HTTP, 16 under way", "publish", "publish",
                 {**f10k, "via": "http", "under-way": 16}, without=slow),
        Scenario("m1k-redis", "channels", "M1k by Redis `PUBLISH`", "redis", "publish",
                 {**m1k, "via": "redis", "under-way": 256}, short=True),
        Scenario("m1k-http", "channels", "M1k by HTTP", "publish", "publish",
                 {**m1k, "via": "http", "under-way": 64}, short=True),
        Scenario("m1k-latency", "latency", "M1k at 10,000/s by Redis `PUBLISH`", "redis", "pace",
                 {**m1k, "via": "redis", "rate": 10_000}, value="p99_us", less=True, short=True),
        Scenario("m1k-latency-http", "latency", "M1k at 10,000/s by HTTP", "publish", "pace",
                 {**m1k, "via": "http", "rate": 10_000}, value="p99_us", less=True,
                 without={"daphne": "it cannot keep up", "uvicorn": "it cannot keep up",
                          "pushpin": "it ends the connection of each publishing call"}),
    ]
    for clients in (100, 1_000):
        small = clients == 100
        for job, title in (("list", "to a Redis list"), ("http", "to HTTP, `task_queued`"),
                           ("stream", "to HTTP, one event back"), ("raw", "to a WebSocket upstream")):
            found.append(Scenario(f"{job}-{clients}", "relay", f"{title}, {clients:,} clients", job, "talk",
                                  {"connections": clients}, short=small))
    found += [
        Scenario("idle", "connections", f"idle connection, {idle:,}", "publish", "hold",
                 {"channels": idle // 2, "subscribers": 2, "settle": 2, "first": 1}, value="bytes_per_connection",
                 less=True, short=True, short_options={"channels": 1_000, "settle": 0.5},
                 without={name: TOO_MANY_GROUPS for name in slow}),
        Scenario("handshake", "connections", "handshake, anonymous", "publish", "hold",
                 {"channels": 4_000, "subscribers": 2, "settle": 0.5, "first": 1}, value="cpu_us",
                 less=True, without={name: TOO_MANY_GROUPS for name in slow}),
        Scenario("handshake-token", "connections", "handshake with a token from Redis", "token", "hold",
                 {"channels": 4_000, "subscribers": 2, "settle": 0.5, "first": 1, "via": "redis"}, value="cpu_us",
                 less=True, short=True, short_options={"channels": 500}),
        Scenario("fairness", "fairness", "1,000 messages a second to 100 small channels, quiet and beside one with 10,000",
                 "redis", "fairness", {"channels": 100, "subscribers": 1, "bytes": 100, "rate": 1_000, "via": "redis"},
                 value="ratio", less=True, without=slow),
    ]
    for clients in (1_000, 10_000):
        found.append(Scenario(f"bound-{clients}", "bounds", f"{clients:,} sockets, 256 bytes", "bound", "receive",
                              {"channels": 1, "subscribers": clients},
                              size={"connections": clients, "bytes": 256}, short=clients == 1_000))
    return found
