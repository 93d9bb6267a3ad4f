"""What a file system consists of: directories and files, and files that are open.

An :class:`Entry` is what has a name.  Opening a file gives an :class:`OpenFile`.  All raise
OSError, whose number the system call that was made fails with.
"""

import errno
import os
import stat
import time


class Entry:
    """``permissions``: the lower nine bits of the mode."""

    kind = stat.S_IFREG

    def __init__(self, permissions: int):
        self.permissions = permissions
        self.uid = os.getuid()
        self.gid = os.getgid()
        self.changed_at = time.time_ns()

    @property
    def size(self) -> int:
        """Bytes, as stat tells; 0 where only reading shows how many there are."""
        return 0

    def attributes(self) -> dict:
        """What stat tells, by the names of its fields; times in nanoseconds."""
        return {
            "st_mode": self.kind | self.permissions, "st_nlink": 1,
            "st_uid": self.uid, "st_gid": self.gid,
            "st_size": self.size, "st_blocks": -(-self.size // 512),
            "st_atime": self.changed_at, "st_mtime": self.changed_at,
            "st_ctime": self.changed_at,
        }

    def open(self, flags: int) -> "OpenFile":
        """``flags``: those of open(2)."""
        raise OSError(errno.EACCES, "cannot be opened")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EINVAL, "has no size to change")


class Directory(Entry):
    """``entries``: those in it, by name."""

    kind = stat.S_IFDIR

    def __init__(self, entries: dict):
        super().__init__(0o755)
        self.entries = entries

    def attributes(self):
        return {**super().attributes(), "st_nlink": 2}


class OpenFile:
    """``cached``: whether the kernel may keep what it has read."""

    cached = False

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes, none at the end."""
        raise OSError(errno.EACCES, "can only be written")

    def write(self, data: bytes, offset: int) -> int:
        """How many bytes were written."""
        raise OSError(errno.EACCES, "can only be read")

    def sync(self) -> None:
        """Return when everything written to the file is safe, through whatever descriptor."""

    def flush(self) -> None:
        """A descriptor is closed; raise what its owner has to know of what he has written."""

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """``mode``: the flags of fallocate(2)."""
        raise OSError(errno.EOPNOTSUPP, "space cannot be managed")

    def close(self) -> None:
        """Nobody uses it any more."""


def wants_to_read(flags: int) -> bool:
    return flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)


def wants_to_write(flags: int) -> bool:
    return flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
