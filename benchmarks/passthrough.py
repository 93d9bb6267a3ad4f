"""A raw file in the file system of sheepfs: what that costs without a cluster behind it.

usage: python -m benchmarks.passthrough FILE MOUNTPOINT
"""

import os
import sys

from sheepstack.export.sheepfs.entries import Directory, Entry, OpenFile
from sheepstack.export.sheepfs.mounting import serve


class RawFile(Entry):

    def __init__(self, path):
        super().__init__(0o600)
        self._path = path

    @property
    def size(self):
        return os.path.getsize(self._path)

    def open(self, flags):
        return _OpenRawFile(os.open(self._path, os.O_RDWR))


class _OpenRawFile(OpenFile):

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def read(self, size, offset):
        return os.pread(self._descriptor, size, offset)

    def write(self, data, offset):
        return os.pwrite(self._descriptor, data, offset)

    def sync(self):
        os.fsync(self._descriptor)

    def close(self):
        os.close(self._descriptor)


if __name__ == "__main__":
    path, mountpoint = sys.argv[1:]
    sys.exit(serve(Directory({os.path.basename(path): RawFile(path)}), mountpoint,
                   lambda: None, foreground=True))
