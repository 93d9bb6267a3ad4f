"""``/config``: how the kernel treats what it reads.

Both settings count for volumes that are opened afterwards.
"""

import errno
import os


class PageCache:
    """Whether the kernel keeps what it reads of a volume.

    It may: while a VDI is mounted for writing, nobody else can change it.
    """

    def __init__(self, enabled: bool):
        self.enabled = enabled

    def tell(self) -> bytes:
        return b"%d\n" % self.enabled

    def order(self, text: str) -> None:
        if text not in ("0", "1"):
            raise OSError(errno.EINVAL, "the page cache is 0 or 1")
        self.enabled = text == "1"


class ReadAhead:
    """How far the kernel reads ahead in files below ``mountpoint``.

    The kernel has a number for each file system, in sysfs.  Where that cannot be written, the
    error is passed on.
    """

    def __init__(self, mountpoint: str):
        self._mountpoint = mountpoint

    def tell(self) -> bytes:
        with open(self._path(), "rb") as file:
            return file.read()

    def order(self, text: str) -> None:
        if not (text.isascii() and text.isdigit()):
            raise OSError(errno.EINVAL, "to read ahead is a number of KiB")
        with open(self._path(), "w") as file:
            file.write(text)

    def _path(self):
        return "/sys/class/bdi/%s/read_ahead_kb" % device_of(self._mountpoint)


def device_of(mountpoint: str) -> str:
    """``major:minor`` of the file system that is mounted there, the last of several.

    To stat the mountpoint would be a question to ourselves.  Raises OSError with ENODEV.
    """
    found = None
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            # proc_pid_mountinfo(5): id, parent, major:minor, root, mount point...
            fields = line.split(b" ")
            if fields[4].decode("unicode_escape").encode("latin-1") == os.fsencode(mountpoint):
                found = fields[2].decode()
    if found is None:
        raise OSError(errno.ENODEV, "nothing is mounted on %s" % mountpoint)
    return found
