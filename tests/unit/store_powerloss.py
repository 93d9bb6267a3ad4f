"""A disk that forgets what was not flushed.

While a :class:`Disk` watches, everything goes to the real filesystem as usual; it notes what
each file held when it was last flushed, and every change of a name, in order.  ``cut(target)``
writes down what a machine might find after its power failed at that moment:

- each page (4,096 bytes) of a file as it was flushed last, or as it is now: pages may reach
  the disk at any time, in any order;
- names as after any prefix of the changes that includes those whose directory was flushed.
"""

import os
import random
import threading
from unittest import mock

from sheepstack.store import disk

PAGE = 4096


class _File:
    """``flushed``: content when it was last flushed; ``fd`` keeps the inode from reuse."""

    def __init__(self, fd):
        self.fd = os.dup(fd)
        self.flushed = b""

    def content(self):
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)


class Disk:
    """Watches all files under ``top``, which is empty so far.  Use as a context manager."""

    def __init__(self, top, seed):
        self._top = os.path.realpath(top)
        self._rng = random.Random(seed)
        self._lock = threading.RLock()
        self._files = {}
        self._changes = []
        self._safe = 0
        self._patches = []
        self._real = {name: getattr(os, name) for name in (
            "open", "rename", "unlink", "mkdir", "rmdir", "fsync", "fdatasync")}
        self._real_syncfs = disk.syncfs
        self.flushes = 0

    def __enter__(self):
        for name in self._real:
            patch = mock.patch.object(os, name, getattr(self, "_" + name))
            patch.start()
            self._patches.append(patch)
        patch = mock.patch.object(disk, "syncfs", self._syncfs)
        patch.start()
        self._patches.append(patch)
        return self

    def __exit__(self, *exc):
        for patch in self._patches:
            patch.stop()
        for file in self._files.values():
            os.close(file.fd)

    def _inside(self, path):
        path = os.path.abspath(os.fspath(path))
        return path if path.startswith(self._top + "/") or path == self._top else None

    def _open(self, path, flags, mode=0o777, **more):
        with self._lock:
            inside = self._inside(path)
            fresh = inside and flags & os.O_CREAT and not os.path.exists(inside)
            fd = self._real["open"](path, flags, mode, **more)
            if fresh:
                key = len(self._files)
                self._files[key] = _File(fd)
                self._changes.append(("link", inside, key))
            return fd

    def _rename(self, source, target):
        with self._lock:
            self._real["rename"](source, target)
            self._changes.append(("rename", self._inside(source), self._inside(target)))

    def _unlink(self, path, **more):
        with self._lock:
            self._real["unlink"](path, **more)
            self._changes.append(("unlink", self._inside(path)))

    def _mkdir(self, path, mode=0o777, **more):
        with self._lock:
            self._real["mkdir"](path, mode, **more)
            self._changes.append(("mkdir", self._inside(path)))

    def _rmdir(self, path, **more):
        with self._lock:
            self._real["rmdir"](path, **more)
            self._changes.append(("unlink", self._inside(path)))

    def _of(self, fd):
        status = os.fstat(fd)
        for file in self._files.values():
            its = os.fstat(file.fd)
            if its.st_ino == status.st_ino and its.st_dev == status.st_dev:
                return file
        return None

    def _fdatasync(self, fd):
        with self._lock:
            self.flushes += 1
            file = self._of(fd)
            if file is not None:
                file.flushed = file.content()

    def _fsync(self, fd):
        with self._lock:
            self.flushes += 1
            file = self._of(fd)
            if file is not None:
                file.flushed = file.content()
                return
            directory = os.path.realpath("/proc/self/fd/%d" % fd)
            for at in range(len(self._changes), self._safe, -1):
                if any(os.path.dirname(str(path)) == directory
                       for path in self._changes[at - 1][1:]):
                    self._safe = at
                    break

    def _syncfs(self, fd):
        with self._lock:
            self.flushes += 1
            self._safe = len(self._changes)
            for file in self._files.values():
                file.flushed = file.content()

    def cut(self, target, note=None):
        """Writes the state after a power failure to ``target``, which does not exist yet.

        Returns what ``note()`` returned at the moment of the failure: nothing that was not
        flushed by then gets flushed before the state is taken.
        """
        with self._lock:
            noted = note() if note else None
            names = self._names(self._rng.randint(self._safe, len(self._changes)))
            self._real["mkdir"](target)
            for path, key in sorted(names.items()):
                there = target + path[len(self._top):]
                if key is None:
                    if path != self._top:
                        self._real["mkdir"](there)
                else:
                    with open(there, "wb") as sink:
                        sink.write(self._survives(self._files[key]))
            return noted

    def _names(self, count):
        names = {self._top: None}
        for change in self._changes[:count]:
            if change[0] == "link":
                names[change[1]] = change[2]
            elif change[0] == "mkdir":
                names[change[1]] = None
            elif change[0] == "unlink":
                names.pop(change[1])
            else:
                source, target = change[1:]
                for path in [path for path in names
                             if path == source or path.startswith(source + "/")]:
                    names[target + path[len(source):]] = names.pop(path)
        return names

    def _survives(self, file):
        before, now = file.flushed, file.content()
        luck = self._rng.choice((0.0, 0.5, 1.0, self._rng.random()))
        length = len(now) if self._rng.random() < luck else len(before)
        pages = []
        for at in range(0, length, PAGE):
            source = now if self._rng.random() < luck else before
            pages.append(source[at:at + PAGE].ljust(PAGE, b"\0"))
        return b"".join(pages)[:length]
