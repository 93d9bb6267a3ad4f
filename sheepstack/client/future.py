"""Reads and writes that were started and end later."""

import logging
import threading

from sheepstack.client.call import Call, ReadCall
from sheepstack.client.errors import ConnectionLost

log = logging.getLogger(__name__)

_lock = threading.Lock()


class Future:
    """The outcome of a read or write that was submitted.

    The usual case, one request to one object, is a call of its own and costs no thread.
    All else (a new object, a range over several objects, anything that has to be tried again)
    is done by ``retry`` in one of the ``workers``.
    """

    __slots__ = ()

    def begin(self, workers, retry):
        """Not for users: ``retry`` does the same the long way."""
        self._workers = workers
        self._retry = retry
        self._settled = False
        self._event = None
        self._value = None
        self._failure = None
        self._callbacks = ()

    def done(self) -> bool:
        return self._settled

    def result(self, timeout=None):
        """The bytes that were read; None for a write.

        Waits at most ``timeout`` seconds and then raises TimeoutError.  Raises what the
        blocking call would have raised.
        """
        if not self._settled:
            self._wait(timeout)
        if self._failure is not None:
            raise self._failure
        return self._value

    def exception(self, timeout=None):
        """The error, or None; waits as :meth:`result` does."""
        if not self._settled:
            self._wait(timeout)
        return self._failure

    def add_done_callback(self, function):
        """Call ``function(self)`` when it is done, now where it is.

        It runs in whatever thread received the answer: it may submit more, but must not wait.
        """
        with _lock:
            if not self._settled:
                self._callbacks += (function,)
                return
        function(self)

    def work(self):
        """Do it the long way; a worker's job."""
        try:
            value = self._retry()
        except BaseException as error:
            self._settle(None, error)
        else:
            self._settle(value, None)

    def _settle(self, value, failure):
        self._value = value
        self._failure = failure
        self._retry = None
        with _lock:
            self._settled = True
            callbacks = self._callbacks
        event = self._event
        if event is not None:
            event.set()
        for function in callbacks:
            try:
                function(self)
            except Exception:
                log.exception("a callback of a future failed")

    def _wait_event(self, timeout):
        with _lock:
            if self._event is None:
                self._event = threading.Event()
        if not self._settled and not self._event.wait(timeout):
            raise TimeoutError("not done within %g seconds" % timeout)


_FIELDS = ("_workers", "_retry", "_settled", "_event", "_value", "_failure", "_callbacks",
           "_driven")


class _CallFuture(Future):
    __slots__ = ()

    def _wait(self, timeout):
        connection = self.connection
        if timeout is None and connection is not None and not self.answered:
            with _lock:
                mine = not self._driven
                self._driven = True
            if mine:
                # Waiting on the connection makes us receive, which an event does not.
                connection.wait(self, self.deadline)
        if not self._settled:
            self._wait_event(timeout)

    def start(self, connection):
        """Send the call, or leave all to a worker where that fails."""
        self._driven = False
        try:
            connection.submit_unattended(self)
        except ConnectionLost:
            self._workers.put(self)


class ReadFuture(ReadCall, _CallFuture):
    """A read of one object."""

    __slots__ = _FIELDS

    def __init__(self, workers, retry, oid, offset, length):
        ReadCall.__init__(self, oid, offset, length)
        self.begin(workers, retry)

    def on_answer(self):
        if self.error is None and not self.status:
            self._settle(self.data, None)
        else:
            self._workers.put(self)


class WriteFuture(Call, _CallFuture):
    """A write into one object."""

    __slots__ = _FIELDS

    def on_answer(self):
        if self.error is None and not self.status:
            self._settle(None, None)
        else:
            self._workers.put(self)


class DoneFuture(Future):
    """The outcome was there at once."""

    __slots__ = ("_value",)

    _settled = True
    _failure = None

    def __init__(self, value):
        self._value = value


class TaskFuture(Future):
    """Something that only a worker can do."""

    __slots__ = _FIELDS

    def __init__(self, workers, retry):
        self.begin(workers, retry)

    def start(self):
        self._workers.put(self)
        return self

    def _wait(self, timeout):
        self._wait_event(timeout)
