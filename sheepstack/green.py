"""Waiting under eventlet, without the detours of its own means.

Only :mod:`sheepstack.runtime` imports this.
"""

import collections
import os

import eventlet
from eventlet import hubs, patcher

_THREADS = 16


class GreenReadable:
    """Waits for the bytes of one socket, again and again; for one green thread.

    The socket stays registered with the hub from one wait to the next; a green socket is
    registered and unregistered each time, which costs as much as a small request does.
    """

    def __init__(self, sock):
        self._number = sock.fileno()
        self._hub = hubs.get_hub()
        self._listener = None
        self._waiter = None

    def wait(self):
        """Return when there is something to receive, or the end of it."""
        if self._listener is None:
            self._listener = self._hub.add(
                self._hub.READ, self._number, self._ready, _ignore, _ignore)
        self._waiter = eventlet.getcurrent()
        self._hub.switch()

    def close(self):
        """Call this before the socket is closed."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._hub.remove(listener)

    def _ready(self, number):
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.switch()
        else:
            # It waits for something else, a lock perhaps, and we would be called all the time.
            self.close()


class _Call:
    __slots__ = ("waiter", "function", "args", "done", "value", "error")

    def __init__(self, waiter, function, args):
        self.waiter = waiter
        self.function = function
        self.args = args
        self.done = False
        self.value = self.error = None


class GreenOffload:
    """Runs calls in native threads while the green threads that made them wait.

    What eventlet's ``tpool`` does, with an event counter in place of a socket pair, and with
    no further turn of the hub between the end of a call and who waits for it.
    """

    def __init__(self):
        self._calls = patcher.original("queue").SimpleQueue()
        self._ended = collections.deque()
        self._under_way = self._threads = 0
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._hub = hubs.get_hub()
        self._hub.add(self._hub.READ, self._event, self._deliver, _ignore, _ignore)

    def __call__(self, function, *args):
        """``function(*args)``; raises what it raises."""
        call = _Call(eventlet.getcurrent(), function, args)
        self._under_way += 1
        if self._under_way > self._threads < _THREADS:
            self._threads += 1
            patcher.original("threading").Thread(target=self._work, daemon=True).start()
        self._calls.put(call)
        try:
            while not call.done:
                self._hub.switch()
        finally:
            self._under_way -= 1
        if call.error is not None:
            raise call.error
        return call.value

    def _work(self):
        while True:
            call = self._calls.get()
            try:
                call.value = call.function(*call.args)
            except BaseException as error:
                call.error = error
            self._ended.append(call)
            os.eventfd_write(self._event, 1)
            call = None

    def _deliver(self, number):
        os.eventfd_read(self._event)
        try:
            while self._ended:
                call = self._ended.popleft()
                call.done = True
                call.waiter.switch()
        finally:
            if self._ended:
                os.eventfd_write(self._event, 1)


def _ignore(*reason):
    """Nobody else closes it."""
