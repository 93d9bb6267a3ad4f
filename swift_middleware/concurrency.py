"""How to block without stopping the others, whatever runs this process's threads.

Swift's own server runs requests as eventlet's green threads; any other WSGI server uses
native ones.  This is the one module that asks which it is.
"""

import eventlet.tpool
from eventlet import patcher


def is_green() -> bool:
    """Whether the threads of this process are eventlet's."""
    return patcher.is_monkey_patched("thread")


def offload(function, *args):
    """Call ``function(*args)``, which blocks in C code, while other threads go on."""
    if is_green():
        return eventlet.tpool.execute(function, *args)
    return function(*args)


def client_timeout(seconds, error):
    """A context that raises ``error`` (an instance) where a client lets us wait so long.

    Only green threads can be interrupted; other WSGI servers have time-outs of their own.
    """
    if is_green():
        return eventlet.Timeout(seconds, error)
    return _Patient()


class _Patient:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass
