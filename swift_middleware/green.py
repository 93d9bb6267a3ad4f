"""Blocking where threads are eventlet's; see :mod:`swift_middleware.concurrency`."""

import eventlet.tpool

offload = eventlet.tpool.execute


def client_timeout(seconds, kind):
    # It is running already, and the with statement stops it.
    return kind(seconds)
