"""Going into the background, without leaving the operator in the dark about the start."""

import os
import sys


class Foreground:
    """Reports to the terminal."""

    def started(self):
        """The daemon runs."""

    def failed(self, message):
        """The daemon cannot start, for a reason of one line."""
        print("sheep: %s" % message, file=sys.stderr)


class _Background:
    def __init__(self, pipe):
        self._pipe = pipe

    def started(self):
        os.write(self._pipe, b"\n")
        os.close(self._pipe)

    def failed(self, message):
        os.write(self._pipe, message.encode() + b"\n")
        os.close(self._pipe)


def detach():
    """Return in a process of its own session; the one that was called waits and exits.

    It exits with 0 once the daemon has started, with 1 and the daemon's message otherwise.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            message = pipe.readline()
        if message == "\n":
            os._exit(0)
        print("sheep: %s" % (message.strip() or "died while it started"), file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    return _Background(writing)
