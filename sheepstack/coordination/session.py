"""The state of a session and its lease, by this process's own clock.

A lease is the promise that the service has not yet given our session up.  It is counted from
the moment a heartbeat was *sent* that was later answered, because the service can have heard
from us no earlier, and in CLOCK_BOOTTIME, which goes on while the process or the whole machine
is stopped and does not jump with the wall clock.  So a process that wakes up after its session
expired finds its lease over before it has run a single line of anything else.

    SUSPENDED --renew--> CONNECTED --suspend, or the lease ran out--> SUSPENDED
    either --lose, or no renewal for the whole session timeout--> LOST, for good

Changes by the clock are not timed by a thread: whoever looks at the state makes them.
"""

import functools
import threading
import time

from sheepstack.coordination.base import SessionState

#: Seconds since boot.
now = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Session:
    """Thread-safe; ``changed()`` is called after each change of state, with no lock held.

    ``timeout``: seconds after which the service gives a silent session up.
    ``margin``: the part of the timeout, from 0 to 1, by which the lease is shorter.
    """

    def __init__(self, timeout: float, margin: float, changed):
        self.timeout = timeout
        #: The lease holds while :func:`now` is less than this.
        self.valid_until = 0.0
        self._margin = margin
        self._changed = changed
        self._lock = threading.Lock()
        self._state = SessionState.SUSPENDED
        self._lost_at = None
        self._round = 0
        self._tell = _ignore

    @property
    def state(self) -> SessionState:
        with self._lock:
            changed = self._tick()
            state = self._state
        if changed:
            self._changed()
        return state

    def watch_lease(self, tell) -> None:
        """Call ``tell(valid_until)`` now, and whenever that changes."""
        with self._lock:
            self._tell = tell
            tell(self.valid_until)

    @property
    def round(self) -> int:
        """To be read before a heartbeat is sent, and given back with its answer."""
        return self._round

    def begin(self) -> None:
        """The session was made: it is lost if no heartbeat is answered within the timeout."""
        with self._lock:
            self._lost_at = self._lost_at or now() + self.timeout

    def renew(self, sent: float, round: int, timeout: "float | None" = None) -> bool:
        """A heartbeat sent at ``sent`` was answered.

        Counts for nothing (False) where the session was suspended since ``round`` was read:
        the answer may then belong to a connection that is gone.  ``timeout`` is the one that
        the service now grants.
        """
        with self._lock:
            changed = self._tick()
            renewed = self._state is not SessionState.LOST and round == self._round
            if renewed:
                self.timeout = timeout or self.timeout
                self._lost_at = sent + self.timeout
                self._hold_until(sent + self.timeout * (1 - self._margin))
                if self._state is SessionState.SUSPENDED:
                    self._state = SessionState.CONNECTED
                    changed = True
                changed = self._tick() or changed
        if changed:
            self._changed()
        return renewed

    def suspend(self) -> None:
        """The service is out of reach."""
        self._become(SessionState.SUSPENDED)

    def lose(self) -> None:
        """The session is over."""
        self._become(SessionState.LOST)

    def _become(self, state):
        with self._lock:
            changed = self._tick()
            if self._state is not SessionState.LOST:
                changed = changed or self._state is not state
                self._enter(state)
        if changed:
            self._changed()

    def _enter(self, state):
        self._round += 1
        self._hold_until(0.0)
        self._state = state

    def _hold_until(self, moment):
        self.valid_until = moment
        self._tell(moment)

    def _tick(self):
        if self._state is SessionState.LOST or self._lost_at is None:
            return False
        time_now = now()
        if time_now >= self._lost_at:
            self._enter(SessionState.LOST)
            return True
        if self._state is SessionState.CONNECTED and time_now >= self.valid_until:
            # The round stays: a late answer to the heartbeat under way is still an answer.
            self._state = SessionState.SUSPENDED
            return True
        return False


def _ignore(valid_until):
    """Nobody wants to know."""
