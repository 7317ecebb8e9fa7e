"""Runs a scenario on a server, and rounds of scenarios in turns over the servers."""

import json
import subprocess
import sys
import time
from pathlib import Path

from .machine import Failed, pinned, real_time

# A measurement that takes longer than this hangs.
DEADLINE, SHORT_DEADLINE = 180, 20
# The short form measures nothing more after this time, in seconds.
SHORT_FORM = 165
# The scenario of the short form in which slow servers take part.
FOR_SLOW = "f1k-http"
FAST_COMMANDS = ("publish", "pace", "talk", "receive")


def generator(world, processes, command, peer, options, nice=False):
    """Returns the generator's command line."""
    file = processes.directory / f"peer-{len(list(processes.directory.glob('peer-*')))}.json"
    file.write_text(json.dumps({key: value for key, value in peer.items() if value is not None}))
    line = [str(world.binaries / "load"), command, "--peer", str(file)]
    line += ["--pids", ",".join(str(pid) for pid in processes.measured())]
    if not nice:
        line += ["--beside", ",".join(str(pid) for pid in world.shared.beside() + processes.beside())]
    for name, value in options.items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return pinned(["nice", "-n", "19", *line] if nice else line, "load")


def finish(command, deadline=DEADLINE):
    """Runs the generator, and returns its result."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=deadline)
    except subprocess.TimeoutExpired:
        raise Failed("the measurement did not end in time") from None
    if done.returncode:
        raise Failed(reason(done.stderr))
    result = json.loads(done.stdout)
    if None in result.values():
        # A figure by nothing is no number.
        raise Failed("nothing arrived in the measured time")
    return result


def reason(errors):
    """Returns what a generator that has failed says, without the body of an HTTP response."""
    line = errors.strip().splitlines()[-1] if errors.strip() else "the generator failed"
    return line.removeprefix("Error: ").strip('"').split("\\r\\n")[0]


def measure(world, server, scenario, times, short=False):
    """Starts a server, and returns the result of a scenario on it. `times` has `seconds` and `warm-up`."""
    options = {**scenario.options, **(scenario.short_options if short else {})}
    size = {**options, **scenario.size}
    with world.processes() as processes:
        peer = server.start(world, processes, scenario.job, size)
        if scenario.command == "fairness":
            return fairness(world, processes, peer, options, times)
        if scenario.command == "talk" and scenario.job == "list":
            options |= {"list": world.redis_address, "key": "bench_messages"}
        if scenario.job == "raw":
            options |= {"echo": True}
        if scenario.command in FAST_COMMANDS:
            options |= times
        command = generator(world, processes, scenario.command, peer, options)
        return finish(command, SHORT_DEADLINE if short else DEADLINE)


def fairness(world, processes, peer, options, times):
    # The generator of the huge channel yields its core to the one that is measured, and to Redis. Otherwise the kernel's
    # turns on their core would be what is measured.
    with real_time(world.shared.beside()) as first:
        return small_beside_huge(world, processes, peer, options, times, first)


def small_beside_huge(world, processes, peer, options, times, first):
    """Returns the small channels' latencies, quiet and while a huge channel is published to without a pause."""
    pace = {**options, **times}
    quiet = finish([*first, *generator(world, processes, "pace", peer, pace)])
    # The generator plays the upstream of a server that needs one; only one of them can.
    huge = {"channels": 1, "subscribers": 10_000, "bytes": 256, "via": "redis", "under-way": 4, "prefix": "huge"}
    long = {"first": 1_000, "warm-up": 0, "seconds": times["seconds"] + times["warm-up"] + 4}
    alone = {**peer, "upstream": None}
    command = generator(world, processes, "publish", alone, {**huge, **long}, nice=True)
    beside = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # It has opened its clients when the server has so many sockets.
        wait_for_clients(processes.measured(), 10_000, beside)
        time.sleep(1)
        # Clients of their own, whose tokens were not used.
        pace = {**pace, "first": options["channels"]}
        loaded = finish([*first, *generator(world, processes, "pace", peer, pace)])
        output, errors = beside.communicate(timeout=DEADLINE)
    finally:
        beside.kill()
        beside.wait()
    if beside.returncode:
        raise Failed(f"beside: {reason(errors)}")
    other = json.loads(output)
    return {
        **{f"quiet_{name}": quiet[name] for name in ("p50_us", "p99_us", "p999_us")},
        **{f"beside_{name}": loaded[name] for name in ("p50_us", "p99_us", "p999_us")},
        "ratio": round(loaded["p99_us"] / max(quiet["p99_us"], 1), 2),
        "huge_per_second": other["per_second"],
        "generator_share": loaded["generator_share"] + other["generator_share"],
        "cpu_us": loaded["cpu_us"],
    }


def wait_for_clients(pids, count, generator):
    until = time.monotonic() + 60
    while sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids) < count:
        if generator.poll() is not None:
            raise Failed(f"beside: {reason(generator.stderr.read())}")
        if time.monotonic() > until:
            raise Failed("the clients of the huge channel did not connect in time")
        time.sleep(0.1)


def rounds(world, servers, scenarios, count, times, short, on_result):
    """Measures everything in interleaved rounds, and passes on each result as it comes."""
    started = time.monotonic()
    for number in range(1, count + 1):
        for scenario in scenarios:
            for server in servers:
                if scenario.reason(server):
                    continue
                entry = {"round": number, "scenario": scenario.name, "server": server.name}
                if short and server.slow and scenario.name != FOR_SLOW:
                    continue
                begun = time.monotonic()
                try:
                    if short and begun - started > SHORT_FORM:
                        entry["skipped"] = True
                        raise Failed("the time of the short form was over")
                    entry["result"] = measure(world, server, scenario, times, short)
                except Failed as failed:
                    entry["error"] = str(failed)
                entry["took"] = round(time.monotonic() - begun, 1)
                on_result(entry)


def show(entry):
    """Prints a result in one line."""
    head = f"round {entry['round']}  {entry['scenario']:18} {entry['server']:12}"
    result = entry.get("result")
    if not result:
        print(f"{head} FAILED: {entry['error']}", flush=True)
        return
    names = ("per_second", "cpu_us", "p50_us", "p99_us", "p999_us", "ratio", "bytes_per_connection", "generator_share")
    shown = [f"{entry['took']} s"] + [f"{name} {result[name]:,.2f}" for name in names if name in result]
    print(head, "  ".join(shown), file=sys.stdout, flush=True)
