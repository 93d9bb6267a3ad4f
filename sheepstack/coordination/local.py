"""The local driver: several processes on one host coordinate through files.

    DIR/sessions/    who lives, see local_sessions
    DIR/state        members and locks, see local_state; replaced under the lock
    DIR/map/         the map and its history, see local_map; added to under the lock
    DIR/tmp/         maps that are being written; their names begin with a session's id
    DIR/lock/        see fenced_lock

The map outlives everything; the rest means nothing once its sessions are gone.
"""

import contextlib
import logging
import os
import shutil
import threading

from sheepstack import runtime
from sheepstack.coordination import local_sessions
from sheepstack.coordination.base import Event, SessionState
from sheepstack.coordination.driver import Driver, check_size
from sheepstack.coordination.errors import CoordinationError, Unreachable
from sheepstack.coordination.fenced_lock import BROKEN, Fenced, FencedLock
from sheepstack.coordination.local_map import MapFiles
from sheepstack.coordination.local_state import State
from sheepstack.coordination.session import now
from sheepstack.coordination.spec import default_directory

LOG = logging.getLogger(__name__)

#: Part of the timeout by which a lease ends before others may expire the session.  All use
#: one clock, so this is only for what a request does after it looked at the lease.
_MARGIN = 0.2
#: Heartbeats for each timeout.
_HEARTBEATS = 10
#: Seconds between two looks at what others changed.
_LOOK = 0.1
#: Seconds that close() waits for the look that is under way.
_LAST_LOOK = 2.0


class LocalCoordinator(Driver):
    """``directory`` is made where it is missing; ``timeout`` in seconds."""

    def __init__(self, directory: str, timeout: float):
        super().__init__(directory, timeout, _MARGIN)
        self._root = directory
        self._sessions = os.path.join(directory, "sessions")
        self._state_file = os.path.join(directory, "state")
        self._map = MapFiles(os.path.join(directory, "map"))
        self._tmp = os.path.join(directory, "tmp")
        self._own = None
        # A heartbeat and the end of the own session exclude each other.
        self._own_lock = threading.Lock()
        self._seen_members = {}
        self._seen_version = -1
        self._closing = threading.Event()
        self._thread = None

    # The session

    def open(self, on_event):
        self._check_new()
        try:
            self._make_directories()
            self._own = local_sessions.OwnSession(self._sessions, self.session_timeout)
            self._id = self._own.id
            self._lock = FencedLock(self._root, self._id)
            self._session.renew(self._own.started, self._session.round)
            self._sweep()
            self._look()
        except OSError as error:
            self.close()
            raise Unreachable("cannot use %s for coordination: %s"
                              % (self._root, error.strerror or error)) from error
        self._pump.start(on_event)
        self._thread = threading.Thread(target=self._run, name="coordination-local", daemon=True)
        self._thread.start()

    def _make_directories(self):
        for path in (self._root, self._sessions, self._map.path, self._tmp):
            os.makedirs(path, mode=0o700, exist_ok=True)
        # Anybody could have been first to take a name in /tmp.
        self._check_owner(self._root, os.getuid())
        if self._root == default_directory():
            self._check_owner(os.path.dirname(self._root), os.getuid(), 0)

    def _check_owner(self, path, *owners):
        if os.stat(path).st_uid not in owners:
            raise Unreachable("cannot use %s for coordination: %s belongs to somebody else"
                              % (self._root, path))

    def _sweep(self):
        """Remove what processes that died in the middle of something left behind."""
        # Listed before the sessions: a session writes here only once it is among them.
        names = os.listdir(self._tmp)
        live = self._live()
        for name in names:
            if name.partition("-")[0] not in live:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._tmp, name))
        for name in os.listdir(self._root):
            if name.startswith(BROKEN):
                shutil.rmtree(os.path.join(self._root, name), ignore_errors=True)

    def close(self):
        if self._closing.is_set():
            return
        self._closing.set()
        self._session.lose()
        self._end()
        self._pump.stop()
        if self._thread is not None:
            self._thread.join(_LAST_LOOK)

    def _end(self):
        with self._own_lock:
            if self._own is not None:
                self._own.end()
                self._own = None

    def _run(self):
        interval = self.session_timeout / _HEARTBEATS
        beat_at = 0.0
        while not self._closing.wait(min(_LOOK, interval)):
            if now() >= beat_at:
                beat_at = now() + interval
                self._beat()
            if self._session.state is SessionState.LOST:
                break
            try:
                self._look()
            except OSError as error:
                LOG.warning("cannot read %s: %s", self._root, error)
        self._end()

    def _beat(self):
        round, sent = self._session.round, now()
        with self._own_lock:
            # Who was silent for too long is lost even if nobody noticed: one rule for all.
            if self._own is None or self._session.state is SessionState.LOST:
                return
            try:
                renewed = self._own.renew(sent)
            except OSError as error:
                LOG.warning("cannot renew the session in %s: %s", self._root, error)
                return
        if renewed:
            self._session.renew(sent, round)
        else:
            self._session.lose()

    # What is there

    def _live(self):
        return local_sessions.live(self._sessions, self._id, self._lock.break_if_held_by)

    def _read_state(self):
        try:
            with open(self._state_file, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def _living_state(self):
        """What lives, as of one moment."""
        raw = self._read_state()
        while True:
            live = self._live()
            again = self._read_state()
            if raw == again:
                state = State.from_bytes(raw)
                state.keep_only(live)
                return state
            raw = again

    def _look(self):
        """Take note of what changed, and tell."""
        with self._view_lock:
            state = self._living_state()
            version = self._map.version()
            if state.members != self._seen_members:
                self._seen_members = state.members
                self._pump.post(Event.MEMBERS)
            if version != self._seen_version:
                self._seen_version = version
                self._pump.post(Event.MAP)
            self._saw_leader(next(iter(state.line()), None))

    @contextlib.contextmanager
    def _reported(self):
        """The session must live; trouble with files becomes a CoordinationError."""
        self._check()
        try:
            yield
        except OSError as error:
            # Where the whole directory was removed, so was the session.
            if not os.path.isdir(os.path.join(self._sessions, self._id)):
                self._session.lose()
            self._check()
            raise CoordinationError("coordination in %s failed: %s"
                                    % (self._root, error.strerror or error)) from error

    def _locked(self, change):
        """Result of ``change(hold, live sessions)``, called with the lock.

        Raises Fenced where the lock was lost meanwhile.
        """
        with self._reported(), self._lock.hold() as hold:
            # The lock says by now that it is ours: who expires us after this fences us off.
            live = self._live()
            if self._id not in live:
                self._session.lose()
            self._check()
            return change(hold, live)

    def _change_state(self, change):
        """Result of ``change(state)``; the state is kept where the result is true."""
        def replace(hold, live):
            state = State.from_bytes(self._read_state())
            state.keep_only(live)
            result = change(state)
            if result:
                hold.commit(state.to_bytes(), self._state_file)
            return result

        while True:
            with contextlib.suppress(Fenced):
                return self._locked(replace)

    # Members

    def publish(self, entry):
        entry = check_size("a member's entry", entry)

        def change(state):
            if self._id in state.members:
                state.members[self._id] = (state.members[self._id][0], entry)
            else:
                state.enqueue(self._id, entry)
            return True

        with self._place_lock:
            self._change_state(change)
            with self._reported():
                self._look()

    def withdraw(self):
        self._leave(lambda state: state.members.pop(self._id, None))

    def resign(self):
        def change(state):
            if self._id not in state.members:
                return False
            state.enqueue(self._id, state.members[self._id][1])
            return True

        self._leave(change)

    def _leave(self, change):
        with self._place_lock:
            with self._leaving_place():
                self._change_state(change)
            with self._reported():
                self._look()

    def members(self):
        with self._reported():
            state = self._living_state()
        return {session: state.members[session][1] for session in state.line()}

    # The map

    def read_map(self):
        with self._reported():
            return self._map.read()

    def replace_map(self, data, version, epoch):
        data = check_size("a map", data)
        blob = os.path.join(self._tmp, "%s-%d" % (self._id, threading.get_ident()))

        def change(hold, live):
            if self._map.version() != version:
                return None
            hold.commit_file(blob, self._map.path_of(version + 1, epoch))
            return version + 1

        while True:
            try:
                # Flushed before the lock is taken, for that can take long.
                with self._reported():
                    _write_durably(blob, data)
                new_version = self._locked(change)
            except Fenced:
                continue
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(blob)
            if new_version is not None:
                with self._reported():
                    _sync_directory(self._map.path)
                    self._map.prune()
                    self._look()
            return new_version

    def history(self, epoch):
        with self._reported():
            return self._map.history(epoch)

    def epochs(self):
        with self._reported():
            return self._map.epochs()

    # Locks

    def acquire(self, name, owner, shared=False):
        owner = check_size("the owner of a lock", owner)
        return self._change_state(lambda state: state.lock(name, self._id, owner, bool(shared)))

    def release(self, name):
        return self._change_state(lambda state: state.unlock(name, self._id))

    def holders(self, name):
        with self._reported():
            state = self._living_state()
        return [(session, owner, shared)
                for session, (shared, owner) in state.locks.get(name, {}).items()]

    def locks(self):
        with self._reported():
            return sorted(self._living_state().locks)


def _write_durably(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        runtime.offload(os.fsync, file.fileno())


def _sync_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        runtime.offload(os.fsync, fd)
    finally:
        os.close(fd)
