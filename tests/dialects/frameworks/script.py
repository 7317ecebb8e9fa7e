"""What every server here streams: `end` ends, `raise` fails in the middle, and `kill` kills the server there."""

import os
import signal

BEGIN = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
END = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Failure(Exception):
    pass


def finish(case):
    if case == "raise":
        raise Failure
    if case == "kill":
        # Also the process that would start another one in its place.
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return END
