"""What the drivers have in common: the session, the events and who leads."""

import contextlib
import threading

from sheepstack.coordination.base import MAX_VALUE, Coordinator, Event, SessionState
from sheepstack.coordination.errors import CoordinationError, SessionLost
from sheepstack.coordination.events import EventPump
from sheepstack.coordination.session import Session, now


class Driver(Coordinator):
    """``service``: what error messages call it.  ``margin``: see :class:`Session`."""

    def __init__(self, service: str, timeout: float, margin: float):
        self._service = service
        self._id = None
        self._pump = EventPump()
        self._session = Session(timeout, margin, lambda: self._pump.post(Event.STATE))
        # Held while the service is looked at and while the outcome is put in place, so that
        # no older view follows a newer one.
        self._view_lock = threading.Lock()
        # One change of this session's place in line at a time.
        self._place_lock = threading.Lock()
        self._leader = None
        self._leads = False
        self._leaving = False

    @property
    def session_timeout(self):
        return self._session.timeout

    @property
    def state(self):
        return self._session.state

    def lease_valid(self):
        return now() < self._session.valid_until

    def watch_lease(self, tell):
        self._session.watch_lease(tell)

    @property
    def session_id(self):
        return self._id

    def is_leader(self):
        return self._leads and self.lease_valid()

    def leader(self):
        return self._leader

    def _saw_leader(self, leader):
        """To be called with the view lock, which was held when it was looked up too."""
        changed = leader != self._leader
        self._leader = leader
        self._leads = not self._leaving and leader is not None and leader == self._id
        if changed:
            self._pump.post(Event.LEADER)

    @contextlib.contextmanager
    def _leaving_place(self):
        """Does not lead from before anybody can see it leave until its place is looked up."""
        with self._view_lock:
            self._leaving = True
            self._leads = False
        try:
            yield
        finally:
            with self._view_lock:
                self._leaving = False

    def _check_new(self):
        if self._id is not None or self._session.state is SessionState.LOST:
            raise CoordinationError("a coordinator can be opened only once")

    def _check(self):
        if self._session.state is SessionState.LOST:
            raise self._lost()
        if self._id is None:
            raise CoordinationError("the session with %s was not opened" % self._service)

    def _lost(self):
        return SessionLost("the session with %s is over" % self._service)


def check_size(what: str, data: bytes) -> bytes:
    """``data`` as bytes.  Raises CoordinationError where that is more than can be stored."""
    if len(data) > MAX_VALUE:
        raise CoordinationError("%s of %d bytes is too large: at most %d"
                                % (what, len(data), MAX_VALUE))
    return bytes(data)
