"""How fast a VDI may be used: kept as an attribute of it, under the key :data:`KEY`.

The value is text: ``name=number`` for each limit that there is, separated by spaces.  The names
are Cinder's.
"""

from typing import NamedTuple

KEY = "limits"
_MOST = 1 << 53


class Limits(NamedTuple):
    """Requests and bytes in a second; 0: as many as can be.

    What ``total`` limits are reads and writes together; all limits hold at the same time.
    """

    total_iops_sec: int = 0
    read_iops_sec: int = 0
    write_iops_sec: int = 0
    total_bytes_sec: int = 0
    read_bytes_sec: int = 0
    write_bytes_sec: int = 0

    def __str__(self):
        return " ".join("%s=%d" % (name, value)
                        for name, value in zip(self._fields, self) if value)


def parse(text: str) -> Limits:
    """The inverse of ``str``; raises ValueError with a reason."""
    found = {}
    for word in text.split():
        name, equals, number = word.partition("=")
        if not equals or name not in Limits._fields:
            raise ValueError("'%s' is not one of %s, and a number" % (
                word, ", ".join(field + "=" for field in Limits._fields)))
        if name in found:
            raise ValueError("%s is there twice" % name)
        if not (number.isascii() and number.isdigit()) or int(number) > _MOST:
            raise ValueError("%s is a whole number, not '%s'" % (name, number))
        found[name] = int(number)
    return Limits(**found)
