"""Ports for servers that are told which port to listen on."""

import random
import socket

# Systems give outgoing connections ports from 32768 (Linux) or 49152 (RFC 6335, section 6) on. Below, no connection of
# another process takes a port between this choice and the server's start, or while the server restarts.
RANGE = range(20000, 32768)

given = set()


def free_port():
    """Returns a port of loopback on which nothing listens, and which this process was not given before."""
    while (port := random.choice(RANGE)) in given or not is_free(port):
        pass
    given.add(port)
    return port


def is_free(port):
    with socket.socket() as probe:
        # Connections that a server has closed a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
