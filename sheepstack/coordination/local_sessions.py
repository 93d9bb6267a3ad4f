"""The sessions of processes on one host, as files in a directory.

A session is the file ``SESSION-ID/TIMEOUT.HEARTBEAT``: its timeout in milliseconds and the
CLOCK_BOOTTIME of its last heartbeat in nanoseconds.  Its process holds a flock on it.

- The process died: the flock is free.  Seen at once.
- The process is stopped: the heartbeat is older than the timeout.
- A heartbeat renames the file, and who finds a session expired unlinks it, both by its whole
  name.  So of a renewal and an expiry that race exactly one takes place, and both parties know
  which.  All read the same clock.
- What is gone is dead for good.  Each session has a directory of its own because a listing of
  many names may miss one that is renamed meanwhile; of one name it can not.
"""

import contextlib
import fcntl
import os
import uuid
from typing import Callable, NamedTuple, Optional, Set

from sheepstack.coordination.session import now

_NS = 1_000_000_000


class _Heartbeat(NamedTuple):
    """The name of a session's file."""

    heartbeat_ns: int
    timeout_ms: int

    def __str__(self):
        return "%d.%d" % (self.timeout_ms, self.heartbeat_ns)

    def expired(self) -> bool:
        return now() * _NS - self.heartbeat_ns > self.timeout_ms * (_NS // 1000)

    @classmethod
    def parse(cls, name: str) -> "Optional[_Heartbeat]":
        timeout_ms, _, heartbeat_ns = name.partition(".")
        if not (timeout_ms.isdecimal() and heartbeat_ns.isdecimal()):
            return None
        return cls(int(heartbeat_ns), int(timeout_ms))


class OwnSession:
    """This process's session among those in the directory ``root``.  Not thread-safe.

    ``timeout`` in seconds.  ``started``: when it began, as of :func:`session.now`.
    Raises OSError.
    """

    def __init__(self, root: str, timeout: float):
        self.started = now()
        self._heartbeat = _Heartbeat(int(self.started * _NS), round(timeout * 1000))
        while True:
            self.id = uuid.uuid4().hex[:16]
            self._path = os.path.join(root, self.id)
            self._fd = self._create()
            if self._fd is not None:
                return

    def _create(self):
        # Whoever sees the session before it has its flock takes it for a dead one's, and
        # removes it.  Then there has to be another.
        os.mkdir(self._path, 0o700)
        try:
            fd = os.open(self._file(self._heartbeat), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        os.close(fd)
        return None

    def renew(self, sent: float) -> bool:
        """Heartbeat as of ``sent``; False where the session was expired by somebody.

        Raises OSError where the file system is in trouble.
        """
        new = self._heartbeat._replace(heartbeat_ns=int(sent * _NS))
        try:
            os.rename(self._file(self._heartbeat), self._file(new))
        except FileNotFoundError:
            return False
        self._heartbeat = new
        return True

    def end(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._file(self._heartbeat))
            os.rmdir(self._path)
        os.close(self._fd)

    def _file(self, heartbeat):
        return os.path.join(self._path, str(heartbeat))


def live(root: str, own_id: str, on_expired: Callable[[str], None]) -> Set[str]:
    """Ids of the live sessions in the directory ``root``.

    The others are removed.  ``on_expired(session_id)`` is called, after that, for each that
    still has a process.  ``own_id`` is not judged, only looked up.
    """
    return {session_id for session_id in os.listdir(root)
            if _is_alive(os.path.join(root, session_id), session_id == own_id,
                         lambda gone=session_id: on_expired(gone))}


def _is_alive(path, own, on_expired):
    while True:
        try:
            heartbeats = list(filter(None, map(_Heartbeat.parse, os.listdir(path))))
        except FileNotFoundError:
            return False
        if not heartbeats:
            _remove(path)
            return False
        if own:
            return True
        # During a renewal a listing may show both names.
        heartbeat = max(heartbeats)
        file = os.path.join(path, str(heartbeat))
        # Not found: it was renewed, or removed, since it was listed.
        with contextlib.suppress(FileNotFoundError):
            if not _has_process(file):
                os.unlink(file)
                _remove(path)
                return False
            if heartbeat.expired():
                os.unlink(file)
                on_expired()
                _remove(path)
                return False
            return True


def _has_process(file):
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove(path):
    # Not empty, or gone: somebody else is at it.
    with contextlib.suppress(OSError):
        os.rmdir(path)
