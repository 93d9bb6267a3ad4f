"""Blocking where threads are eventlet's.  Only entry points import this."""

import eventlet
import eventlet.tpool
from eventlet import patcher

client_timeout = eventlet.Timeout
offload = eventlet.tpool.execute


def is_in_use() -> bool:
    """Whether the threads of this process are eventlet's."""
    return patcher.is_monkey_patched("thread")
