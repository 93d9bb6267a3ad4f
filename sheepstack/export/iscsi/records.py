"""Targets on disk, as tgtd itself forgets them when it ends.

A directory with a file of JSON for each target, readable by its owner alone since it holds
secrets.  A file is replaced as a whole.
"""

import contextlib
import fcntl
import json
import os
import time
import urllib.parse

from sheepstack.export.iscsi.errors import BadTarget, TargetBusy
from sheepstack.export.iscsi.target import as_record, from_record

_SUFFIX = ".json"
_LOCK_FILE = "lock"
_PAUSE = 0.02


class Records:
    """Of all processes that use ``directory``, one at a time has :meth:`locked`."""

    def __init__(self, directory):
        self._directory = os.fspath(directory)

    @contextlib.contextmanager
    def locked(self, timeout):
        """Raises TargetBusy where others have it for ``timeout`` seconds."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        deadline = time.monotonic() + timeout
        fd = os.open(os.path.join(self._directory, _LOCK_FILE),
                     os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A process that is full of green threads must not be stopped in the kernel.
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TargetBusy("another process holds '%s' for more than %g s"
                                         % (self._directory, timeout)) from None
                    time.sleep(_PAUSE)
            yield
        finally:
            os.close(fd)

    def _path(self, name):
        return os.path.join(self._directory, urllib.parse.quote(name, safe="") + _SUFFIX)

    def get(self, name):
        """The target of that name, or None.  Raises BadTarget for a damaged record."""
        try:
            with open(self._path(name), encoding="utf-8", errors="surrogateescape") as file:
                return from_record(json.load(file))
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError) as error:
            raise BadTarget("'%s' is damaged: %s" % (self._path(name), error)) from None

    def names(self) -> list:
        try:
            files = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(urllib.parse.unquote(file.removesuffix(_SUFFIX)) for file in files
                      if file.endswith(_SUFFIX))

    def all(self) -> list:
        """Raises BadTarget for a damaged record."""
        found = (self.get(name) for name in self.names())
        return [target for target in found if target is not None]

    def put(self, target):
        path = self._path(target.name)
        fresh = path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(as_record(target), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        self._sync()

    def remove(self, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(name))
            self._sync()

    def _sync(self):
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
