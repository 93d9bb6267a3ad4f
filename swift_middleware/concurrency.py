"""How to block without stopping the others, whatever runs this process's threads.

Native threads need no help.  Where they are eventlet's, the entry point that finds them so
says :func:`use` with :mod:`swift_middleware.green`, and nothing else asks which it is.
"""

_helper = None


def use(helper):
    """``helper``: has an ``offload`` and a ``client_timeout`` of its own."""
    global _helper
    _helper = helper


def offload(function, *args):
    """Call ``function(*args)``, which blocks in C code, while other threads go on."""
    if _helper is not None:
        return _helper.offload(function, *args)
    return function(*args)


def client_timeout(seconds, error):
    """A context that raises ``error`` (an instance) where a client lets us wait so long.

    Only green threads can be interrupted; other WSGI servers have time-outs of their own.
    """
    if _helper is not None:
        return _helper.client_timeout(seconds, error)
    return _PATIENT


class _Patient:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


_PATIENT = _Patient()
