"""Who waits for bytes on the many sockets of a sheep.

A *channel* is the receiving end of one connection: ``step(batch)`` takes what has arrived,
without waiting for more, handles it and returns False at the end of the stream; ``unfinished``
is true where that was so much that another step should follow once others had their turn;
``congested()`` tells that no more should be taken for now, and ``when_clear(callback)`` that
``callback()`` is wanted once that is over; ``ended(error)`` is called once, last.

Under eventlet each channel has a green thread of its own.  Under native threads one thread
waits for all of them: handing the interpreter from thread to thread for every message costs
more than handling it.
"""

import logging
import select
import threading

from sheepstack import runtime
from sheepstack.sheep.outlet import Batch
from sheepstack.wire.errors import RemoteProtocolError

log = logging.getLogger(__name__)


class ThreadPerChannel:
    """For green threads."""

    def serve(self, sock, channel):
        """Receive for ``channel`` until it ends."""
        threading.Thread(
            target=_serve, args=(sock, channel), daemon=True, name="channel").start()


def _serve(sock, channel):
    batch = Batch()
    error = None
    clear = threading.Event()
    readable = runtime.Readable(sock)
    try:
        readable.wait()
        while channel.step(batch):
            batch.flush()
            if channel.unfinished:
                runtime.give_way()
                continue
            while channel.congested():
                clear.clear()
                channel.when_clear(clear.set)
                clear.wait(1.0)
            readable.wait()
    except Exception as caught:
        error = caught
    readable.close()
    channel.ended(error)
    batch.flush()


class Poller:
    """For native threads: one serves all channels."""

    def __init__(self):
        self._epoll = select.epoll()
        self._channels = {}
        self._unfinished = {}
        self._thread = None
        self._lock = threading.Lock()

    def serve(self, sock, channel):
        """Receive for ``channel`` until it ends."""
        number = sock.fileno()
        with self._lock:
            self._channels[number] = channel
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="poller")
                self._thread.start()
        self._epoll.register(number, select.EPOLLIN)

    def _run(self):
        batch = Batch()
        while True:
            ready = [number for number, _ in self._epoll.poll(0 if self._unfinished else -1)]
            turns = {number: self._channels.get(number) for number in ready}
            turns.update(self._unfinished)
            self._unfinished.clear()
            for number, channel in turns.items():
                if channel is not None and self._channels.get(number) is channel:
                    self._step(number, channel, batch)
            try:
                batch.flush()
            except Exception:
                log.exception("sending")

    def _step(self, number, channel, batch):
        error = None
        try:
            if channel.step(batch):
                if channel.unfinished:
                    self._unfinished[number] = channel
                elif channel.congested():
                    self._epoll.modify(number, 0)
                    channel.when_clear(lambda: self._resume(number, channel))
                return
        except Exception as caught:
            error = caught
        # Before the channel closes its socket: the number may be given out again at once.
        del self._channels[number]
        self._epoll.unregister(number)
        channel.ended(error)

    def _resume(self, number, channel):
        if self._channels.get(number) is channel:
            try:
                self._epoll.modify(number, select.EPOLLIN)
            except OSError as error:
                log.debug("resume: %s", error)


def make_receiver():
    """The receiver that suits the runtime."""
    return ThreadPerChannel() if runtime.name == "eventlet" else Poller()


def explain(error, who, was_expected=False):
    """Log why a channel ended, as loudly as it deserves."""
    if error is None or was_expected:
        return
    if isinstance(error, RemoteProtocolError):
        log.warning("%s: %s: closed", who, error)
    elif isinstance(error, OSError):
        log.debug("%s: %s", who, error)
    else:
        log.error("%s: closed", who, exc_info=error)
