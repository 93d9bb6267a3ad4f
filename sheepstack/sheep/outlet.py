"""The sending half of a connection.

Messages are collected and leave in as few system calls as possible.  Whoever handles a
burst of events passes a :class:`Batch` along; what they cause to be sent anywhere goes out
when the batch ends.
"""

import collections
import socket
import threading
from struct import Struct

_IOV_LIMIT = 512
_LINGER_SECONDS = 5.0
_DESCRIPTOR = Struct("=i")
_NOW = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Batch:
    """Outlets that have something to send once the present burst is handled."""

    __slots__ = ("_outlets", "_later")

    def __init__(self):
        self._outlets = []
        self._later = []

    def add(self, outlet):
        if outlet not in self._outlets:
            self._outlets.append(outlet)

    def later(self, function, *arguments):
        """Call this when the burst's messages have left; it may cause new ones."""
        self._later.append((function, arguments))

    def flush(self):
        self._flush_outlets()
        while self._later:
            calls, self._later = self._later, []
            for function, arguments in calls:
                function(*arguments)
            self._flush_outlets()

    def _flush_outlets(self):
        if self._outlets:
            outlets, self._outlets = self._outlets, []
            for outlet in outlets:
                outlet.flush()


class Outlet:
    """Sends on ``sock`` without ever blocking the caller.

    What the kernel does not take at once is sent by a thread of the outlet's own, which
    stays for a while in case there is more.  ``on_progress()`` is called when that thread has
    sent something.
    """

    def __init__(self, sock):
        self._sock = sock
        self._queue = collections.deque()
        self._lock = threading.Lock()
        self._draining = False
        self._rest = None
        self._work = threading.Condition(self._lock)
        self._has_drainer = False
        self._closed = False
        self.on_progress = _nothing

    def put(self, buffers, batch=None):
        """Queue one message (an iterable of bytes-like); without a batch it leaves at once."""
        self._queue.extend(buffers)
        if batch is None:
            self.flush()
        else:
            batch.add(self)

    def put_message(self, header, batch=None):
        """Queue a message that is a header alone."""
        self._queue.append(header)
        if batch is None:
            self.flush()
        else:
            batch.add(self)

    def send_with_descriptor(self, message, descriptor) -> bool:
        """Send ``message`` with a descriptor at once; False where that is not possible."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
        try:
            with self._lock:
                if self._queue or self._draining or self._closed:
                    return False
                return self._sock.sendmsg((message,), (rights,), _NOW) == len(message)
        except OSError:
            return False
        finally:
            # Who wanted to send meanwhile found the lock taken.
            self.flush()

    def flush(self):
        while self._queue and not self._draining:
            if not self._lock.acquire(blocking=False):
                # The holder looks at the queue again after it lets the lock go.
                return
            try:
                if self._draining or self._closed:
                    return
                rest = self._send_some()
                if rest:
                    self._hand_over(rest)
                    return
            finally:
                self._lock.release()

    def _take(self):
        buffers, queue = [], self._queue
        while queue and len(buffers) < _IOV_LIMIT:
            buffers.append(queue.popleft())
        return buffers

    def _send_some(self):
        """Send what goes without waiting; returns the buffers that did not go."""
        while True:
            buffers = self._take()
            if not buffers:
                return None
            try:
                sent = self._sock.sendmsg(buffers, (), _NOW)
            except (BlockingIOError, InterruptedError):
                return buffers
            except OSError:
                self._fail()
                return None
            rest = _after(buffers, sent)
            if rest:
                return rest

    def _hand_over(self, rest):
        """Leave ``rest`` and all that is queued to the outlet's thread; the lock is held."""
        self._draining = True
        self._rest = rest
        if self._has_drainer:
            self._work.notify()
        else:
            self._has_drainer = True
            threading.Thread(target=self._drain, daemon=True, name="drain").start()

    def _drain(self):
        try:
            while True:
                with self._lock:
                    if not self._draining and not self._closed:
                        self._work.wait(_LINGER_SECONDS)
                    if not self._draining or self._closed:
                        self._has_drainer = False
                        break
                    rest = self._rest
                while rest:
                    for buffer in rest:
                        self._sock.sendall(buffer)
                    with self._lock:
                        rest = self._take()
                        self._draining = bool(rest)
                    self.on_progress()
                # Something may have been queued by one who still saw us at work.
                self.flush()
            # And by one who found us holding the lock, at the end of our rest.
            self.flush()
        except OSError:
            with self._lock:
                self._has_drainer = False
                self._fail()

    def _fail(self):
        self._closed = True
        self._draining = False
        self._rest = None
        self._queue.clear()

    @property
    def backlog(self) -> int:
        """Bytes that are queued because the other side does not take them."""
        if not self._draining or self._closed:
            return 0
        return sum(len(buffer) for buffer in list(self._queue))

    def close(self):
        with self._lock:
            self._fail()
            self._work.notify()


def _nothing():
    pass


def _after(buffers, sent):
    """The part of ``buffers`` behind the first ``sent`` bytes."""
    for position, buffer in enumerate(buffers):
        length = len(buffer)
        if sent < length:
            return [memoryview(buffer)[sent:]] + buffers[position + 1:]
        sent -= length
    return None
