"""A lock between processes of one host that nobody can hold for ever.

The lock is flock on ``lock/flock``, so it goes with a process that dies.  A process that is
stopped keeps it, though, and must neither hold up the others nor, when it goes on, change what
they changed meanwhile.  Therefore:

- A holder has one way to change something: it writes a file with a name of its own into the
  directory ``lock`` and renames it, by path, from there to its place.
- Who finds the lock stuck renames the directory ``lock`` away and makes a new one.  The files of
  the stuck holder went with it, so its rename fails: it is fenced off, in one atomic step,
  wherever it was stopped.
- A holder creates its files through a descriptor of the directory in which it has the flock, so
  that they are never in a newer one.

To break a lock that was not stuck does no harm: its holder learns it and tries again.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import time
import uuid

#: Seconds after which one and the same hold counts as stuck; holds last milliseconds.
STUCK_AFTER = 1.0

#: How the names of directories begin that were renamed away, and are of no more use.
BROKEN = "broken-"

#: Seconds between two attempts: at first, and at most.
_POLL = (0.0005, 0.01)
_HOLDER_SIZE = 64


class Fenced(Exception):
    """The lock was taken away from its holder, and nothing of its change was made."""


class _Hold:
    """What a holder may do."""

    def __init__(self, lock, directory, token):
        self._lock = lock
        self._directory = directory
        self._token = token

    def commit(self, data: bytes, target: str) -> None:
        """Make ``data`` the content of the file ``target``, in one step.  Raises Fenced."""
        try:
            fd = os.open(self._token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600,
                         dir_fd=self._directory)
        except FileNotFoundError:
            raise Fenced from None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view):]
        finally:
            os.close(fd)
        self._put(target)

    def commit_file(self, source: str, target: str) -> None:
        """Move the holder's file ``source`` to ``target``.  Raises Fenced; it is gone then."""
        try:
            os.rename(source, self._token, dst_dir_fd=self._directory)
        except FileNotFoundError:
            raise Fenced from None
        self._put(target)

    def _put(self, target):
        try:
            os.rename(os.path.join(self._lock.path, self._token), target)
        except FileNotFoundError:
            raise Fenced from None


class FencedLock:
    """The lock in the directory ``root``, for the holder that calls itself ``name``."""

    def __init__(self, root: str, name: str):
        self.path = os.path.join(root, "lock")
        self._root = root
        self._name = name
        self._serial = itertools.count(1)

    @contextlib.contextmanager
    def hold(self):
        """Gives a hold with ``commit(data, path)`` and ``commit_file(source, path)``.

        Raises FileNotFoundError where ``root`` is gone, and OSError.
        """
        token = "%s-%d" % (self._name, next(self._serial))
        directory, fd = self._acquire(token)
        try:
            yield _Hold(self, directory, token)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(token, dir_fd=directory)
            os.close(fd)
            os.close(directory)

    def break_if_held_by(self, name: str) -> None:
        """Fence off whoever calls itself ``name``, if it has the lock or had it last."""
        try:
            with open(os.path.join(self.path, "flock"), "rb") as file:
                holder = file.read(_HOLDER_SIZE)
        except FileNotFoundError:
            return
        if holder.rpartition(b"-")[0] == name.encode():
            self._break()

    def _acquire(self, token):
        seen, since = None, time.monotonic()
        pause = _POLL[0]
        while True:
            directory = self._open_directory()
            try:
                fd = os.open("flock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600,
                             dir_fd=directory)
            except FileNotFoundError:
                # Broken, and removed, since it was opened.
                os.close(directory)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.pwrite(fd, token.encode().ljust(_HOLDER_SIZE), 0)
                return directory, fd
            except BlockingIOError:
                holder = os.pread(fd, _HOLDER_SIZE, 0).rstrip()
            except BaseException:
                os.close(fd)
                os.close(directory)
                raise
            os.close(fd)
            os.close(directory)
            if holder != seen:
                seen, since = holder, time.monotonic()
            elif time.monotonic() - since > STUCK_AFTER:
                self._break()
                seen = None
            # A flock that may take no longer than so much can not be awaited, only asked for.
            time.sleep(pause)
            pause = min(pause * 2, _POLL[1])

    def _open_directory(self):
        while True:
            try:
                return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path, 0o700)

    def _break(self):
        broken = os.path.join(self._root, BROKEN + uuid.uuid4().hex)
        try:
            os.rename(self.path, broken)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            shutil.rmtree(broken, ignore_errors=True)
