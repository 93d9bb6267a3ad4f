"""How much room there is, asked seldom enough to cost nothing."""

import errno
import os
import threading
import time

from sheepstack.store.errors import NoSpace, from_os_error

#: How long an answer of the filesystem is good for; others write to it too.
_TRUST_SECONDS = 0.25

#: With less than this left, disk blocks are reserved before anything is overwritten, so that
#: a write that does not fit changes nothing.
_PLENTY = 512 << 20


class Space:
    """Room on the filesystem of ``path``; ``reserve`` bytes of it are held back."""

    def __init__(self, path, reserve=None):
        self._path = path
        self._lock = threading.Lock()
        self._free = 0
        self._asked = -1.0
        total, _ = self.ask()
        #: Bytes held back; by default a hundredth of the filesystem, at most 1 GiB.
        self.reserve = min(1 << 30, total // 100) if reserve is None else reserve

    def ask(self):
        """(total, free) bytes.  Raises StoreIOError."""
        try:
            facts = os.statvfs(self._path)
        except OSError as error:
            raise from_os_error(error, "cannot ask for free space") from error
        free = facts.f_bavail * facts.f_frsize
        with self._lock:
            self._free = free
            self._asked = time.monotonic()
        return facts.f_blocks * facts.f_frsize, free

    @property
    def is_full(self) -> bool:
        return self.ask()[1] <= self.reserve

    def claim(self, file, offset, length):
        """Room for ``length`` new bytes of ``file``, not from the reserve, or NoSpace."""
        self._claim(file, offset, length, self.reserve)

    def claim_reserved(self, file, offset, length):
        """As :meth:`claim`, but what is held back may be used."""
        self._claim(file, offset, length, 0)

    def _claim(self, file, offset, length, reserve):
        with self._lock:
            if time.monotonic() - self._asked < _TRUST_SECONDS:
                self._free -= length
                free = self._free
            else:
                free = None
        if free is None or free < reserve + _PLENTY:
            free = self.ask()[1] - length
        if free < reserve:
            raise NoSpace("no space for %d bytes: %d are free, %d of them held back" % (
                length, max(0, free + length), reserve))
        if free < _PLENTY:
            try:
                file.allocate(offset, length)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise from_os_error(
                        error, "no space for %d bytes" % length) from error
