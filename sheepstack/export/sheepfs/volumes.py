"""``/volume``: the mounted VDIs, each as a file."""

import errno
import logging
import os
import threading
import time

from sheepstack.client import NoSuchTag, NoSuchVdi, SheepError
from sheepstack.export.names import meanings_of
from sheepstack.export.sheepfs.entries import Directory, Entry, OpenFile, wants_to_write
from sheepstack.export.sheepfs.errors import MOUNTING, as_os_errors

log = logging.getLogger(__name__)

# Flags of fallocate(2).
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10
_ZEROING = (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE)

#: Bytes of the name of a file.
_LONGEST = 255


class Volumes(Directory):
    """``caching``: a :class:`PageCache` that says whether the kernel may keep what it reads.

    ``read_only``: VDIs are mounted without a lock, and cannot be written.
    """

    def __init__(self, cluster, caching, read_only=False):
        super().__init__({})
        self._cluster = cluster
        self._caching = caching
        self._read_only = read_only
        self._changing = threading.Lock()

    def mount(self, name: str) -> None:
        """Open a VDI, and lock it where it is for writing; nothing where that was done.

        ``name``: see :mod:`sheepstack.export.names`.
        """
        if not name or "/" in name or name in (".", "..") or len(os.fsencode(name)) > _LONGEST:
            raise OSError(errno.EINVAL, "'%s' is no name of a file" % name)
        with self._changing, as_os_errors("mount VDI '%s'" % name, MOUNTING):
            if name not in self.entries:
                self.entries[name] = Volume(self._open(name), self._caching)
                log.info("VDI '%s' is mounted", name)

    def _open(self, name):
        missing = None
        for vdi, snapshot in meanings_of(name):
            try:
                return self._cluster.open_vdi(vdi, snapshot, read_only=self._read_only)
            except (NoSuchVdi, NoSuchTag) as error:
                missing = missing or error
        raise missing

    def unmount(self, name: str) -> None:
        """Close a VDI and give the lock back; EBUSY while somebody has the file open."""
        with self._changing, as_os_errors("unmount VDI '%s'" % name, MOUNTING):
            volume = self.entries.get(name)
            if volume is None:
                raise OSError(errno.ENOENT, "VDI '%s' is not mounted" % name)
            volume.retire()
            del self.entries[name]
            log.info("VDI '%s' is unmounted", name)

    def close(self) -> None:
        """Close all VDIs, whoever has them open."""
        with self._changing:
            for name, volume in self.entries.items():
                try:
                    volume.vdi.flush()
                except SheepError as error:
                    log.error("cannot flush VDI '%s': %s", name, error)
                volume.vdi.close()
            self.entries.clear()


class Volume(Entry):
    """A mounted VDI.  It has the size of the VDI, and can only be made bigger."""

    def __init__(self, vdi, caching):
        super().__init__(0o400 if vdi.read_only else 0o600)
        self.vdi = vdi
        self._caching = caching
        self._counting = threading.Lock()
        self._users = 0
        self._retired = False

    @property
    def size(self):
        return self.vdi.size

    def open(self, flags):
        """O_TRUNC is of no effect, as with any block device."""
        if wants_to_write(flags) and self.vdi.read_only:
            raise OSError(errno.EROFS, "VDI '%s' is mounted for reading only" % self.vdi.name)
        with self._counting:
            if self._retired:
                raise OSError(errno.ENOENT, "VDI '%s' is not mounted" % self.vdi.name)
            self._users += 1
        return _OpenVolume(self, self._caching.enabled)

    def leave(self) -> None:
        """One who had it open closed it."""
        with self._counting:
            self._users -= 1

    def retire(self) -> None:
        """Close the VDI for good, unless somebody has the file open."""
        with self._counting:
            if self._users:
                raise OSError(errno.EBUSY, "VDI '%s' is in use" % self.vdi.name)
            self._retired = True
        try:
            self.vdi.flush()
        except SheepError:
            self._retired = False
            raise
        self.vdi.close()

    def truncate(self, size):
        """Bigger only: what a disk holds is not thrown away by a slip of the shell."""
        if size < self.vdi.size:
            raise OSError(errno.EINVAL, "VDI '%s' cannot be made smaller" % self.vdi.name)
        with as_os_errors("resize VDI '%s'" % self.vdi.name):
            if size > self.vdi.size:
                self.vdi.resize(size)
                self.touch()

    def touch(self) -> None:
        """It was changed just now."""
        self.changed_at = time.time_ns()


class _OpenVolume(OpenFile):

    def __init__(self, volume, cached):
        self.cached = cached
        self._volume = volume
        self._vdi = volume.vdi
        self._unsafe = False

    def _guarded(self, doing):
        return as_os_errors("%s VDI '%s'" % (doing, self._vdi.name))

    def read(self, size, offset):
        with self._guarded("read"):
            return self._vdi.pread(offset, size)

    def write(self, data, offset):
        room = self._vdi.size - offset
        if room <= 0 < len(data):
            raise OSError(errno.ENOSPC, "the end of VDI '%s'" % self._vdi.name)
        with self._guarded("write"):
            written = self._vdi.pwrite(offset, memoryview(data)[:room])
        self._changed()
        return written

    def _changed(self):
        self._unsafe = True
        self._volume.touch()

    def sync(self):
        self._unsafe = False
        with self._guarded("flush"):
            self._vdi.flush()

    def flush(self):
        if self._unsafe:
            self.sync()

    def allocate(self, mode, offset, length):
        if mode not in _ZEROING:
            super().allocate(mode, offset, length)
        with self._guarded("discard a part of"):
            self._vdi.write_zeroes(offset, max(0, min(length, self._vdi.size - offset)))
        self._changed()

    def close(self):
        self._volume.leave()
