"""A VDI as a file."""

import errno
import io
import os


class VdiFile(io.RawIOBase):
    """Seekable and unbuffered; wrap it in ``io.BufferedReader`` where small reads are many.

    A file ends where the VDI ends: a read there returns nothing, a write there raises OSError
    with ENOSPC.  :meth:`truncate` resizes the VDI.
    """

    def __init__(self, vdi):
        super().__init__()
        self._vdi = vdi
        self._position = 0

    @property
    def name(self):
        return self._vdi.name

    @property
    def mode(self):
        return "rb" if self._vdi.read_only else "rb+"

    def readable(self):
        return True

    def writable(self):
        return not self._vdi.read_only

    def seekable(self):
        return True

    def _check(self):
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def seek(self, offset, whence=os.SEEK_SET):
        self._check()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._vdi.size}
        if whence not in base:
            raise ValueError("invalid whence: %r" % (whence,))
        position = base[whence] + offset
        if position < 0:
            raise ValueError("negative seek position %d" % position)
        self._position = position
        return position

    def tell(self):
        self._check()
        return self._position

    def read(self, size=-1):
        self._check()
        if size is None or size < 0:
            return self.readall()
        data = self._vdi.pread(self._position, size)
        self._position += len(data)
        return data

    def readall(self):
        self._check()
        return self.read(max(0, self._vdi.size - self._position))

    def readinto(self, buffer):
        self._check()
        count = self._vdi.preadinto(self._position, buffer)
        self._position += count
        return count

    def write(self, data):
        self._check()
        if self._vdi.read_only:
            raise io.UnsupportedOperation("not writable")
        with memoryview(data) as whole, whole.cast("B") as view:
            room = max(0, self._vdi.size - self._position)
            if view and not room:
                raise OSError(errno.ENOSPC, "the end of VDI '%s'" % self._vdi.name)
            with view[:room] as piece:
                count = self._vdi.pwrite(self._position, piece)
        self._position += count
        return count

    def truncate(self, size=None):
        self._check()
        if size is None:
            size = self._position
        self._vdi.resize(size)
        return size

    def flush(self):
        if not self.closed and not self._vdi.closed and not self._vdi.read_only:
            self._vdi.flush()
        super().flush()
