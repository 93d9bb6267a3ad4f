"""The few system calls that Python's ``os`` lacks or that need care."""

import ctypes
import errno
import os

from sheepstack import runtime

_LIBC = ctypes.CDLL(None, use_errno=True)
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
#: Bytes written by one call.  The kernel makes as large a folio of the page cache as the call
#: is long, and ext4 walks over all blocks of a folio whenever a few bytes of it change: after
#: a write of 4 MiB in one go, overwriting 4 KiB takes 50 us instead of 2.
_PIECE = 32 << 10


def syncfs(fd):
    """Flush the whole filesystem that ``fd`` lies on; raises OSError."""
    if _LIBC.syncfs(ctypes.c_int(fd)):
        _raise_errno()


def punch_hole(fd, offset, length):
    """Free ``length`` bytes of a file, which then read as zeros; raises OSError."""
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if _LIBC.fallocate(ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_int64(offset),
                       ctypes.c_int64(length)):
        _raise_errno()


def _raise_errno():
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def write_fully(fd, data, offset) -> None:
    """Write all of ``data`` at ``offset``.

    Raises OSError; its attribute ``written`` says how many bytes had been written by then.
    """
    length = len(data)
    done = 0
    try:
        if length <= _PIECE:
            done = os.pwrite(fd, data, offset)
        while done < length:
            more = os.pwrite(fd, memoryview(data)[done:done + _PIECE], offset + done)
            if not more:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += more
    except OSError as error:
        error.written = done
        raise


def _read_waiting(fd, buffer, offset):
    wanted = len(buffer)
    done = os.preadv(fd, [buffer], offset)
    # The kernel may stop early, at a signal or at a damaged page; 0 means the file's end.
    more = done
    while more and done < wanted:
        more = os.preadv(fd, [memoryview(buffer)[done:]], offset + done)
        done += more
    return done


def read_into(fd, buffer, offset) -> int:
    """Fill ``buffer`` from ``offset``; returns how many bytes the file had.

    What is in memory is copied at once; under green threads the rest is waited for in a
    native thread, so that one cold block does not stop everybody.  Raises OSError.
    """
    if runtime.name != "eventlet":
        return _read_waiting(fd, buffer, offset)
    try:
        done = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        if done == len(buffer):
            return done
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        # A filesystem in memory (tmpfs) has nothing to wait for, and says so this way.
        return _read_waiting(fd, buffer, offset)
    return runtime.offload(_read_waiting, fd, buffer, offset)


def read_at(fd, length, offset):
    """Up to ``length`` bytes (bytes-like) at ``offset``, less only where the file ends."""
    if runtime.name != "eventlet":
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
    buffer = bytearray(length)
    got = read_into(fd, buffer, offset)
    return buffer if got == length else memoryview(buffer)[:got]


def sync_directory(path) -> None:
    """Make the names in the directory ``path`` durable; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        runtime.offload(os.fsync, fd)
    finally:
        os.close(fd)


def boot_id() -> bytes:
    """16 bytes that differ each time the machine starts; zeros where nobody tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as source:
            return bytes.fromhex(source.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
