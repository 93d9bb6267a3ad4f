"""What the kernel asks through libfuse, done by entries.

libfuse calls from threads of its own, several at a time.  An OSError becomes the error of the
system call that was made.
"""

import errno
import itertools

import mfusepy

from sheepstack.export.sheepfs.entries import Directory


class Filesystem(mfusepy.Operations):
    """``root``: a :class:`Directory`.  ``on_end()`` is called once all is over.

    Methods are those of libfuse's high-level interface, and get its ``fuse_file_info``.
    """

    #: Times are in nanoseconds.
    use_ns = True

    def __init__(self, root: Directory, on_end):
        self._root = root
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._files = {}

    def _entry(self, path):
        entry = self._root
        for name in path.split("/")[1:] if path != "/" else ():
            if not isinstance(entry, Directory):
                raise OSError(errno.ENOTDIR, path)
            entry = entry.entries.get(name)
            if entry is None:
                raise OSError(errno.ENOENT, path)
        return entry

    def _file(self, info):
        return self._files[info.fh]

    def init_with_config(self, connection, config):
        # What is there and how big it is changes without the kernel's doing.
        config.entry_timeout = config.attr_timeout = config.negative_timeout = 0

    def destroy(self, path):
        self._on_end()

    def getattr(self, path, info=None):
        return self._entry(path).attributes()

    def readdir(self, path, number):
        return [".", "..", *list(self._entry(path).entries)]

    def open(self, path, info):
        file = self._entry(path).open(info.flags)
        info.fh = next(self._numbers)
        self._files[info.fh] = file
        info.direct_io = not file.cached
        info.keep_cache = file.cached
        return 0

    def read(self, path, size, offset, info):
        return self._file(info).read(size, offset)

    def write(self, path, data, offset, info):
        return self._file(info).write(data, offset)

    def flush(self, path, info):
        self._file(info).flush()

    def fsync(self, path, data_only, info):
        self._file(info).sync()

    def fallocate(self, path, mode, offset, length, info):
        self._file(info).allocate(mode, offset, length)

    def release(self, path, info):
        self._files.pop(info.fh).close()

    def truncate(self, path, size, info=None):
        self._entry(path).truncate(size)

    def chmod(self, path, mode):
        self._entry(path).permissions = mode & 0o777

    def chown(self, path, uid, gid):
        entry = self._entry(path)
        entry.uid = entry.uid if uid == -1 else uid
        entry.gid = entry.gid if gid == -1 else gid

    def utimens(self, path, times=None):
        """Times are those of the last change, whoever wants others."""

    def _refuse(self, *_):
        raise OSError(errno.EPERM, "VDIs are made and deleted by dog")

    create = mknod = mkdir = rmdir = unlink = rename = link = symlink = _refuse
