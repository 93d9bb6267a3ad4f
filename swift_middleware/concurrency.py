"""How to block without stopping the others, whatever runs this process's threads.

Native threads need no help.  Where they are eventlet's, :mod:`swift_middleware.green` gives it;
nothing else asks which it is, and who runs native threads never loads that.
"""

import sys

_helper = None


def choose():
    """Find out how the threads of this process run; entry points call it first of all."""
    global _helper
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        from swift_middleware import green
        _helper = green


def offload(function, *args):
    """Call ``function(*args)``, which blocks in C code, while other threads go on."""
    if _helper is not None:
        return _helper.offload(function, *args)
    return function(*args)


def pause():
    """Let the others have their turn, in the middle of something that takes the processor long.

    What reads from a socket, or writes to one, does not wait where the other side is fast enough,
    and then does not let anybody else in either.
    """
    if _helper is not None:
        _helper.pause()


def client_timeout(seconds, kind):
    """A context that raises ``kind`` where a client lets us wait so long.

    ``kind``: a class of Swift's time-outs, not an instance: they begin to run when they are made.
    Only green threads can be interrupted; other WSGI servers have time-outs of their own.
    """
    if _helper is not None:
        return _helper.client_timeout(seconds, kind)
    return _PATIENT


class _Patient:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


_PATIENT = _Patient()
