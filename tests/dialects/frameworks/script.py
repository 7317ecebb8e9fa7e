"""What every server here streams, by the name of the case.

`end` ends, `early` fails before the first event, `raise` fails in the middle, `kill` kills the server there, and `hang`
writes keep-alives until the client has gone.
"""

import asyncio
import os
import signal
import time

BEGIN = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
END = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
PING = ": ping\n\n"
# What was yielded has been written before the server is killed, and keep-alives are this far apart.
PAUSE = 0.05


class Failure(Exception):
    pass


def begin(case):
    if case == "early":
        raise Failure
    return BEGIN


def finish(case):
    if case == "raise":
        raise Failure
    if case == "kill":
        # Also the process that would start another one in its place.
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return END


def pieces(case):
    yield begin(case)
    try:
        while case == "hang":
            time.sleep(PAUSE)
            yield PING
    finally:
        if case == "hang":
            print("closed", flush=True)
    time.sleep(PAUSE)
    yield finish(case)


async def async_pieces(case):
    yield begin(case)
    try:
        while case == "hang":
            await asyncio.sleep(PAUSE)
            yield PING
    finally:
        if case == "hang":
            print("closed", flush=True)
    await asyncio.sleep(PAUSE)
    yield finish(case)
