"""Blocking where threads are eventlet's; see :mod:`swift_middleware.concurrency`."""

import eventlet
import eventlet.tpool

client_timeout = eventlet.Timeout
offload = eventlet.tpool.execute
