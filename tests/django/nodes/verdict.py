"""Counts what a client has lost and what it got twice, from everything that it was sent."""

ENDS = ("completed", "complete", "error", "cancelled")


class Verdict:
    """The verdict on one reply of `chunks` chunks, whose last event was sent at `ended_at`.

    A client gets the reply from the beginning, also one that connected without `since` while the reply ran. Once a
    client was told that it has missed something, it has dropped the unfinished reply: what follows may start anywhere,
    but must be whole from there on. `told` has the times at which it was told.
    """

    def __init__(self, log, chunks, ended_at):
        self.chunks, self.lost, self.repeated, self.ends, self.markers = chunks, 0, 0, 0, 0
        self.told, self.faults, self.has_wrong_ends = [], [], False
        self.expected, self.previous, self.received = 0, None, 0
        for at, kind, value in log:
            if kind == "connected":
                self.connected(at, value)
            elif kind == "frame":
                self.frame(value)
        if self.ends == 0:
            # Whoever comes or is told after the end finds the reply in the API.
            first = next(at for at, kind, _ in log if kind == "connected")
            comes_late = not self.received and first >= ended_at
            if not comes_late and not (self.told and self.told[-1] >= ended_at):
                self.has_wrong_ends = True
                self.faults.append("no end")
                self.lost += chunks - (self.expected or 0)
        if self.ends > 1:
            self.has_wrong_ends = True
            self.faults.append(f"{self.ends} ends")
        if self.markers != 1:
            self.faults.append(f"{self.markers} markers")

    def connected(self, at, frame):
        asked = frame["asked"]
        # Without `since`, the beginning of a running reply may not be stored any more.
        if frame.get("recovered") is False:
            self.told.append(at)
            if not self.ends:
                self.expected = None
        elif asked and tuple(asked) != (frame["offset"], frame["epoch"]):
            self.faults.append(f"recovered from {frame['offset']} of {frame['epoch']} instead of {asked}")
        self.previous = frame["offset"]

    def frame(self, frame):
        if "offset" in frame:
            if frame["offset"] != self.previous + 1:
                self.faults.append(f"offset {frame['offset']} follows {self.previous}")
            self.previous = frame["offset"]
        if frame["event"] == "chunk":
            self.received += 1
            self.chunk(frame["number"])
        elif frame["event"] == "marker":
            self.markers += 1
        elif frame["event"] in ENDS:
            self.end(frame)

    def chunk(self, number):
        if self.expected is None:
            self.expected = number
        self.lost += max(0, number - self.expected)
        self.repeated += number < self.expected or self.ends > 0
        self.expected = max(self.expected, number + 1)

    def end(self, frame):
        self.ends += 1
        if frame["event"] == "error":
            self.faults.append(f"an error: {frame}")
        if self.ends == 1 and self.expected is not None:
            self.lost += self.chunks - self.expected
            self.expected = self.chunks

    @property
    def is_good(self):
        return not (self.lost or self.repeated or self.faults)


class AfterTheEnd(Verdict):
    """The verdict on a client that came without `since` when the reply had ended, and gets nothing of it."""

    def __init__(self, log):
        super().__init__(log, 0, 0)
        self.lost, self.repeated = 0, self.received
        if self.received or self.ends:
            self.faults.append("the finished reply came again")
