"""Blocking where threads are eventlet's; see :mod:`swift_middleware.concurrency`."""

import eventlet
import eventlet.tpool

offload = eventlet.tpool.execute


def pause():
    eventlet.sleep(0)


def client_timeout(seconds, kind):
    # It is running already, and the with statement stops it.
    return kind(seconds)
