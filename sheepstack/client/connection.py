"""One connection to a gateway: requests pipelined, answers in any order, matched by id.

There is no reader thread on the way of a caller that waits.  Of all that wait for answers
one drives: it receives for everybody until its own answer is there, then wakes the next
to drive.  So a single caller never switches threads, and of many answers that come at once
none costs a system call of its own.  Likewise requests that follow others are gathered until
somebody waits, then sent together.

For calls that nobody waits for (futures) an attendant thread is started with the first of
them.  It steps in when nothing has moved for :data:`_GRACE` seconds.

States: *whole* until the socket or the peer fails, then *broken* for ever.  A broken
connection answers all that it still has with an error, and takes nothing new.
"""

import collections
import contextlib
import logging
import socket
import struct
import threading
import time

from sheepstack.client.call import ControlCall
from sheepstack.client.errors import ConnectionLost
from sheepstack.client.inbox import Inbox
from sheepstack.client.outbox import send_all
from sheepstack.wire.errors import RemoteProtocolError
from sheepstack.wire.header import Header
from sheepstack.wire.opcodes import PROTO_VER, Op

log = logging.getLogger(__name__)

_GRACE = 0.002
_GATHER_BYTES = 64 * 1024
_GATHER_CALLS = 64

#: Share of a request's time after which a silent gateway is asked whether it lives.  After
#: as much again without a sign it is given up: by then its session has expired and other
#: sheep refuse what it still may have forwarded for us.
_PATIENCE = 0.2

#: For SO_LINGER: forget what was not sent.
_AT_ONCE = struct.pack("ii", 1, 0)

_monotonic = time.monotonic
_PING = Header(PROTO_VER, Op.GET_CLUSTER_DEFAULT, 0, 0, 0, 0).pack()


class Connection:
    """Wraps a connected socket.

    ``name`` of the gateway is for messages.  ``generation`` tells which of the pool's links
    to a gateway it belongs to.  To be looked at only: ``calls`` without an answer, by id;
    ``broken``, the error or None; ``was_silent``: it broke because the gateway took and said
    nothing for long.
    """

    def __init__(self, sock, name, timeout, generation=0):
        self.name = name
        self.generation = generation
        self.calls = {}
        self.broken = None
        self.was_silent = False
        self._sock = sock
        self._patience = timeout * _PATIENCE
        sock.settimeout(max(0.02, min(1.0, self._patience / 2)))
        self._inbox = Inbox(sock, self.calls, self._tick)
        self._taken = 0
        self._gathered = []
        self._gathered_bytes = 0
        self._send_lock = threading.Lock()
        self._mutex = threading.Lock()
        self._driven = False
        self._driver = None
        self._parked = collections.deque()
        self._visits = 0
        self._heard = _monotonic()
        self._ping = None
        self._progress = 0
        self._attendant = None
        self._attendant_idle = False
        self._attention = threading.Event()
        self._closed = threading.Event()

    @property
    def gave_nothing(self) -> bool:
        """True where it broke before anything had come."""
        return self.broken is not None and not self._inbox.taken

    @property
    def peer(self):
        """``host:port`` of the other end, in numbers; None for a Unix socket."""
        if self._sock.family == socket.AF_UNIX or self.broken is not None:
            return None
        host, port = self._sock.getpeername()[:2]
        return "%s:%d" % (host, port)

    # -- sending

    def submit(self, call):
        """Queue a call.  It leaves at once where nothing else is on its way, at the latest
        when somebody waits.  Raises ConnectionLost where the connection is broken."""
        payload = call.payload
        try:
            with self._send_lock:
                if self.broken is not None:
                    raise self.broken
                calls = self.calls
                if not calls:
                    self._heard = _monotonic()
                calls[call.ident] = call
                call.connection = self
                call.sent = True
                gathered = self._gathered
                gathered.append(call.header)
                if payload is not None:
                    gathered.append(payload)
                    self._gathered_bytes += len(payload)
                if (len(calls) == 1 or self._gathered_bytes > _GATHER_BYTES
                        or len(gathered) > _GATHER_CALLS):
                    self._send()
        except OSError as error:
            self.fail(error)
        except ConnectionLost:
            raise
        except BaseException:
            self.fail(_interrupted(self.name))
            raise

    def submit_unattended(self, call):
        """Queue a call that perhaps nobody waits for.  Raises ConnectionLost."""
        self.submit(call)
        if self._attendant is None:
            self._start_attendant()
        elif self._attendant_idle:
            self._attention.set()

    def flush(self):
        """Send what was gathered."""
        if self._gathered:
            try:
                with self._send_lock:
                    self._send()
            except OSError as error:
                self.fail(error)
            except BaseException:
                self.fail(_interrupted(self.name))
                raise

    def _flush_unless_busy(self):
        """As :meth:`flush`, but where somebody is sending just now let him.

        The driver must not wait for a sender: the peer may read nothing until its own
        answers are taken.
        """
        if self._send_lock.acquire(blocking=False):
            try:
                self._send()
            except OSError as error:
                self._mark_broken(error)
            finally:
                self._send_lock.release()

    def _send(self):
        buffers, self._gathered = self._gathered, []
        self._gathered_bytes = 0
        if buffers and self.broken is None:
            send_all(self._sock, buffers, self._show_life, self._look_for_life)

    def _show_life(self):
        self._heard = _monotonic()

    def _look_for_life(self):
        silence = _monotonic() - self._heard
        if silence > 2 * self._patience:
            self.was_silent = True
            raise OSError("no sign of life for %.1f seconds" % silence)

    # -- waiting

    def wait(self, call, deadline):
        """Return once ``call`` is answered; at ``deadline`` (monotonic) break the connection,
        which answers it too."""
        self.flush()
        while not call.answered:
            with self._mutex:
                if not self._driven:
                    self._driven = True
                    self._driver = threading.get_ident()
                    turn = None
                elif self._driver == threading.get_ident():
                    raise RuntimeError("a callback of a future must not wait for another one")
                else:
                    turn = self._park(call)
            if turn is None:
                self._drive(call, deadline)
            elif not self._await_turn(turn, call, deadline):
                self.fail(ConnectionLost("no answer from %s in time" % self.name))
                deadline = _monotonic() + 2 * self._patience
            elif not call.answered:
                with self._mutex:
                    self._driver = threading.get_ident()
                self._drive(call, deadline)

    def _park(self, call):
        turn = threading.Lock()
        turn.acquire()
        call.waiter = turn
        self._parked.append(call)
        self._visits += 1
        return turn

    def _await_turn(self, turn, call, deadline):
        """Wait for the answer or for the role of the driver; False where time ran out."""
        try:
            if call.answered or turn.acquire(timeout=max(0, deadline - _monotonic())):
                if call.answered:
                    self._leave(call)
                return True
        except BaseException:
            self._leave(call)
            raise
        self._leave(call)
        return call.answered

    def _drive(self, call, deadline):
        try:
            while not call.answered:
                self._pump()
                if not call.answered and _monotonic() > deadline:
                    self._break(ConnectionLost("no answer from %s in time" % self.name))
        except BaseException:
            # Half a message may have been taken from the stream.
            self._break(_interrupted(self.name))
            raise
        finally:
            self._step_down()

    def _leave(self, call):
        """Stop being parked; where the role of the driver was just handed to us, go on."""
        with self._mutex:
            turn, call.waiter = call.waiter, None
            if turn is None:
                return
            try:
                self._parked.remove(call)
            except ValueError:
                handed = not call.answered
            else:
                handed = False
        if handed:
            self._step_down()

    def _step_down(self):
        with self._mutex:
            self._driver = None
            while self._parked:
                call = self._parked.popleft()
                if not call.answered:
                    # The role is handed over; it stays taken.
                    call.waiter.release()
                    return
            self._driven = False

    # -- receiving; all of this is done by the driver only

    def _pump(self):
        """Receive once and answer what is complete."""
        if self._gathered:
            self._flush_unless_busy()
        if self.broken is not None:
            self._sweep()
            return
        try:
            complete = self._inbox.receive()
        except TimeoutError:
            try:
                self._tick()
            except OSError as error:
                self._break(error)
            return
        except (OSError, EOFError, RemoteProtocolError) as error:
            self._break(error)
            return
        self._heard = _monotonic()
        self._progress += 1
        for call in complete:
            _answer(call)

    def _tick(self):
        """Nothing came for a while: look whether the gateway lives and time is left."""
        now = _monotonic()
        if any(call.deadline is not None and now > call.deadline
               for call in list(self.calls.values())):
            raise OSError("no answer in time")
        if self._inbox.taken != self._taken:
            # A large answer is on its way.
            self._taken = self._inbox.taken
            self._heard = now
        self._look_for_life()
        if now - self._heard > self._patience and (self._ping is None or self._ping.answered):
            if self._send_lock.acquire(blocking=False):
                try:
                    self._ping = ControlCall(_PING)
                    self.calls[self._ping.ident] = self._ping
                    self._gathered.append(self._ping.header)
                    self._send()
                finally:
                    self._send_lock.release()

    def _break(self, error):
        self._mark_broken(error)
        self._sweep()

    def _sweep(self):
        """Answer every call with the error, and free the socket."""
        with self._send_lock:
            calls = list(self.calls.values())
            self.calls.clear()
            self._gathered = []
            if calls:
                # What it has not taken yet must not reach it later, when the network is whole
                # again: another gateway may have done it by then, and what came after it.
                with contextlib.suppress(OSError):
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._sock.close()
        self._closed.set()
        self._attention.set()
        for call in calls:
            call.error = self.broken
            _answer(call)

    # -- ending

    def fail(self, error):
        """Break the connection; everything on its way is answered with an error."""
        self._mark_broken(error)
        with self._mutex:
            if self._driven:
                # The driver wakes up from the shut socket and answers them.
                return
            self._driven = True
            self._driver = threading.get_ident()
        try:
            self._sweep()
        finally:
            self._step_down()

    def close(self):
        """As :meth:`fail`, on the owner's wish."""
        self.fail(ConnectionLost("the connection to %s was closed" % self.name))

    def _mark_broken(self, error):
        if self.broken is None:
            if not isinstance(error, ConnectionLost):
                error = ConnectionLost("connection to %s lost: %s" % (self.name, error))
            self.broken = error
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # -- the attendant

    def _start_attendant(self):
        with self._mutex:
            if self._attendant is not None:
                return
            self._attendant = threading.Thread(
                target=self._attend, daemon=True, name="sheep-" + self.name)
        self._attendant.start()

    def _attend(self):
        while not self._closed.is_set():
            if not self.calls:
                self._attention.clear()
                self._attendant_idle = True
                if not self.calls and not self._closed.is_set():
                    self._attention.wait()
                self._attendant_idle = False
                continue
            seen = self._progress
            if self._closed.wait(_GRACE):
                return
            if self._progress != seen:
                continue
            with self._mutex:
                if self._driven:
                    continue
                self._driven = True
                self._driver = threading.get_ident()
            visits = self._visits
            try:
                while self.calls and self._visits == visits:
                    self._pump()
            except BaseException:
                self._break(_interrupted(self.name))
                raise
            finally:
                self._step_down()


def _interrupted(name):
    return ConnectionLost("a caller was interrupted while it used the connection to %s" % name)


def _answer(call):
    call.answered = True
    waiter = call.waiter
    if waiter is not None:
        waiter.release()
    if call.on_answer is not None:
        try:
            call.on_answer()
        except Exception:
            log.exception("the callback of a finished request failed")
