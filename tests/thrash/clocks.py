"""Clocks on the wall that jump or stand still, one for each sheep, by libfaketime.

What leases are timed by, the clock that counts from the start of the machine, goes on as it is.
"""

import ctypes.util
import glob

#: What a clock can be changed to, beside "+1h" and the like.
RIGHT = "+0"
STOPPED = "2031-01-01 00:00:00"

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")


def are_possible(runtime) -> bool:
    """True where libfaketime is installed and does not get into the way.

    With the monotonic clock left alone, sleeping in a native thread (clock_nanosleep) fails
    with EINVAL under it; eventlet sleeps otherwise.
    """
    return runtime == "eventlet" and _library() is not None


def _library():
    found = [path for place in _PLACES for path in glob.glob(place)]
    return found[0] if found else ctypes.util.find_library("faketimeMT")


class Clocks:
    """``root``: the directory in which a file for each sheep says what its clock does."""

    def __init__(self, root):
        self._root = root
        self._library = _library()

    def _file(self, index):
        return self._root / ("clock%d" % index)

    def prefix(self, index) -> tuple:
        """Words in front of the command of a sheep."""
        self.change(index, RIGHT)
        return ("env", "LD_PRELOAD=%s" % self._library, "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
                "FAKETIME_TIMESTAMP_FILE=%s" % self._file(index))

    def change(self, index, what):
        """``what`` in libfaketime's words."""
        fresh = self._root / ("clock%d.new" % index)
        fresh.write_text(what + "\n")
        fresh.replace(self._file(index))
