"""How a daemon's threads run: as eventlet's green threads or as native ones.

An entry point calls :func:`choose` before it imports anything else.  All other code is
plain blocking code on ``socket``, ``threading`` and ``queue`` and never asks which it is,
save for :func:`offload`, which keeps a call that blocks in the kernel (a flush to disk)
from stopping the other green threads, and for the hot path of a daemon, which waits with
:data:`Readable` and receives from a :func:`bare_socket`.
"""

RUNTIMES = ("eventlet", "threading")

name = "threading"
#: Under eventlet :class:`~sheepstack.green.GreenReadable`.
Readable = None
_offload = None
_sleep = None


def choose(runtime: str) -> None:
    """Select ``runtime``, one of :data:`RUNTIMES`; raises ValueError for another."""
    global name, Readable, bare_socket, _offload, _sleep
    if runtime not in RUNTIMES:
        raise ValueError("unknown runtime '%s': choose from %s" % (runtime, ", ".join(RUNTIMES)))
    if runtime == "eventlet":
        import warnings

        with warnings.catch_warnings():
            # Its users are told that it is on its way out; whoever runs a daemon knows.
            warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
            import eventlet
            from sheepstack.green import GreenOffload, GreenReadable

        eventlet.monkey_patch()
        Readable, bare_socket = GreenReadable, _beneath
        _offload = GreenOffload()
        _sleep = eventlet.sleep
    name = runtime


def give_way():
    """Let other threads go on, where they do not do so by themselves."""
    if _sleep is not None:
        _sleep(0)


def bare_socket(sock):
    """What to call with MSG_DONTWAIT on ``sock``: green sockets wait all the same."""
    return sock


def _beneath(sock):
    return sock.fd


def offload(function, *args):
    """Call ``function(*args)``, which blocks in the kernel, while other threads go on."""
    if _offload is None:
        return function(*args)
    return _offload(function, *args)
