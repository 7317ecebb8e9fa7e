"""A TCP proxy between a browser and a gateway that can be interrupted like a network cable."""

import contextlib
import socket
import threading

DEADLINE = 15


class Cable:
    """Forwards every connection to its own port to `target`, a port of this machine, while it is plugged
    in. Connections that are opened while it is unplugged wait, as packets on a bad network do."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.plugged = threading.Event()
        self.plugged.set()
        self.muted = False
        self.ends = []
        self.lock = threading.Lock()
        self.start(self.accept)

    def unplug(self):
        """Breaks every connection on both sides, without a close frame."""
        with self.lock:
            self.plugged.clear()
            for end in self.ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.ends.clear()

    def mute(self):
        """Discards what the gateway sends, until the cable is plugged in again."""
        self.muted = True

    def plug(self, target=None):
        self.target = target or self.target
        self.muted = False
        self.plugged.set()

    def start(self, run, *args):
        threading.Thread(target=run, args=args, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            self.start(self.carry, near)

    def carry(self, near):
        while True:
            self.plugged.wait()
            with self.lock:
                if not self.plugged.is_set():
                    continue
                far = socket.create_connection(("127.0.0.1", self.target), DEADLINE)
                far.settimeout(None)
                self.ends += [near, far]
                break
        self.start(self.pump, near, far, lambda: False)
        self.start(self.pump, far, near, lambda: self.muted)

    def pump(self, source, sink, lost):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not lost():
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
