"""The table of what was counted, and the timelines of clients that failed.

`lost` and `repeated` are chunks, the other columns clients: those that failed, that were told to have missed something,
whose reply did not end once, and with another fault.
"""

import time
from collections import defaultdict

SHOWN = 3
LINES = 15
COLUMNS = ("clients", "failed", "lost", "repeated", "told", "ends", "other")


class Report:
    def __init__(self, directory):
        self.directory, self.failed = directory, 0
        self.rows = defaultdict(lambda: defaultdict(int))
        self.began = time.monotonic()

    def add(self, cluster, rounds):
        for number, each in enumerate(rounds):
            # Whoever was told after the next kill was told because of that.
            kills = [other.killed_at for other in rounds[number + 1 :] if other.killed_at]
            each.until = min(kills, default=float("inf"))
            for conversation in each.conversations:
                for client, verdict in conversation.verdicts():
                    self.count(cluster, each, conversation, client, verdict)

    def count(self, cluster, each, conversation, client, verdict):
        told = [at for at in verdict.told if at < each.until]
        if told and each.event != "kill":
            verdict.faults.append("told, though nobody died")
        elif told and (cluster.layer == "core" or conversation.is_heard_elsewhere()):
            verdict.faults.append("told, though nothing was lost")
        row = self.rows[cluster.layer, f"{each.event}, {each.nodes} nodes"]
        row["clients"] += 1
        row["failed"] += not verdict.is_good
        row["lost"] += verdict.lost
        row["repeated"] += verdict.repeated
        row["told"] += bool(told)
        row["ends"] += verdict.has_wrong_ends
        row["other"] += len(verdict.faults) - verdict.has_wrong_ends
        if not verdict.is_good:
            self.failed += 1
            self.fail(cluster, conversation, client, verdict)

    def fail(self, cluster, conversation, client, verdict):
        counts = f"lost {verdict.lost}, repeated {verdict.repeated}, told {len(verdict.told)}, ends {verdict.ends}"
        print(f"FAILED: {cluster.layer} {client.name}: {counts}; {'; '.join(verdict.faults)}", flush=True)
        timeline = self.timeline(cluster, conversation, client)
        path = self.directory / f"{cluster.layer}-{client.name.split(' ')[0].replace('/', '-')}.txt"
        path.write_text(f"{client.name}: {counts}; {verdict.faults}\n{timeline}\n")
        if self.failed <= SHOWN:
            print(timeline, flush=True)
            for process in cluster.processes:
                print(f"--- {process.name} said:", *self.said(process, conversation.name), sep="\n", flush=True)

    def said(self, process, name):
        """The last lines of a gateway's log that are about a conversation, or warn."""
        wanted = (name, '"WARN"', '"ERROR"')
        lines = process.read_log().splitlines()
        return [line for line in lines if any(word in line for word in wanted)][-LINES:]

    def timeline(self, cluster, conversation, client):
        first, last = client.log[0][0], client.log[-1][0]
        log = [(at, f"{kind} {value}") for at, kind, value in client.log]
        log += [(at, f"*** {text}") for at, text in cluster.log if first - 1 < at < last + 1]
        log.append((conversation.ended_at, "*** the worker has sent its last event"))
        return "\n".join(f"{at - first:8.3f} {text}" for at, text in sorted(log))

    def finish(self):
        print(f"{'':30}" + "".join(f"{column:>10}" for column in COLUMNS))
        for (layer, event), row in sorted(self.rows.items()):
            print(f"{f'{layer}, {event}':30}" + "".join(f"{row[column]:>10}" for column in COLUMNS))
        print(f"{time.monotonic() - self.began:.0f} s", flush=True)
        return self.failed
