"""How numbers, times and names are written."""

import sys
import time

UNITS = ("MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def size(number: int, raw: bool = False) -> str:
    """Bytes for people (``8.0 GB``), or as a plain number where ``raw``."""
    if raw:
        return str(number)
    value = number / (1024 * 1024)
    unit = 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value /= 1024
        unit += 1
    return ("%.0f %s" if value >= 10 else "%.1f %s") % (value, UNITS[unit])


def ratio(part: int, whole: int) -> int:
    """Per cent, cut to a whole number; 0 of nothing."""
    return int(part / whole * 100) if whole else 0


def clock_seconds(value: int) -> int:
    """Seconds since 1970 in a time as inodes and the cluster's creation time hold it."""
    return value >> 32


def minute(seconds: int) -> str:
    """``2014-02-05 15:04``, local time."""
    return _local("%Y-%m-%d %H:%M", seconds)


def second(seconds: int) -> str:
    """``2014-02-05 15:04:59``, local time."""
    return _local("%Y-%m-%d %H:%M:%S", seconds)


def day(seconds: int) -> str:
    return _local("%Y-%m-%d", seconds)


def time_of_day(seconds: int) -> str:
    return _local("%H:%M:%S", seconds)


def long_date(seconds: int) -> str:
    """``Wed Feb  5 15:04:59 2014``, local time."""
    return time.ctime(seconds) if _has_calendar(seconds) else str(seconds)


def _local(form, seconds):
    return time.strftime(form, time.localtime(seconds)) if _has_calendar(seconds) else "?"


def _has_calendar(seconds):
    try:
        time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return False
    return True


def redundancy(nr_copies: int, copy_policy: int) -> str:
    """``3``, or ``4:2`` for four data strips and two parity strips."""
    if copy_policy:
        return "%d:%d" % ((copy_policy >> 4) * 2, copy_policy & 0x0F)
    return str(nr_copies)


def escaped(name: str) -> str:
    """A name as one word: white space and backslashes get a backslash in front."""
    return "".join("\\" + c if c.isspace() or c == "\\" else c for c in name)


def complain(*lines: str) -> None:
    """Write lines to standard error, behind everything on standard output so far."""
    sys.stdout.flush()
    for line in lines:
        print(line, file=sys.stderr)
    sys.stderr.flush()


def on_terminal() -> bool:
    """True where standard output is a terminal."""
    return sys.stdout.isatty()
