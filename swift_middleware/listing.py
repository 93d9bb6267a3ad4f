"""Listings: which names a request asks for.  Pure.

Names are bytes and sort as such.  ``scan(low, low_included, high, reverse, limit)`` gives at
most ``limit`` rows (mappings with a "name") from ``low`` up to, but not including, ``high``,
where either may be None; ``reverse``: the last ones first.  It is asked again after every
common prefix, so a listing costs as many index look-ups as it has entries, however many names
are behind each.
"""

import datetime
import functools

#: Names that begin with it are seen by those only who may see reserved names.
RESERVED = b"\0"

_FIRST_PAGE = 64


def successor(prefix: bytes):
    """The first string after all that begin with ``prefix``; None where there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def names(scan, limit, marker=b"", end_marker=b"", prefix=b"", delimiter=b"", path=None,
          reverse=False, reserved=False) -> list:
    """At most ``limit`` entries: rows, and bytes for what is behind a common prefix.

    ``path``: None, or the pseudo-directory whose immediate content is asked for; entries are
    then rows only.
    """
    if reverse:
        marker, end_marker = end_marker, marker
    if path is not None:
        prefix = path.rstrip(b"/") + b"/" if path else b""
        delimiter = b"/"
    low, low_included = (marker, False) if marker else (None, True)
    high = end_marker or None
    if prefix:
        if low is None or low < prefix:
            low, low_included = prefix, True
        high = _least(high, successor(prefix))
    if not reserved and (low is None or low < RESERVED + b"\xff"):
        first = successor(RESERVED)
        if low is None or low < first:
            low, low_included = first, True
    found = []
    if not delimiter:
        return list(scan(low, low_included, high, reverse, limit))
    page = min(limit, _FIRST_PAGE)
    while len(found) < limit:
        if high is not None and low is not None and low >= high:
            break
        rows = scan(low, low_included, high, reverse, page)
        for row in rows:
            name = row["name"]
            end = name.find(delimiter, len(prefix))
            if reverse:
                high = name
            else:
                low, low_included = name, False
            if path is not None and name == prefix and prefix:
                continue
            if end >= 0 and (path is None or len(name) > end + len(delimiter)):
                common = name[:end + len(delimiter)]
                if reverse:
                    high = common
                else:
                    low, low_included = successor(common), True
                if path is None and common != (end_marker if reverse else marker):
                    found.append(common)
                break
            found.append(row)
            if len(found) == limit:
                return found
        else:
            if len(rows) < page:
                break
            page = min(4 * page, limit)
            continue
        if low is None and not reverse:
            break
        page = max(2, page // 2)
    return found


def isoformat(timestamp: str) -> str:
    """As Swift's ``Timestamp(timestamp).isoformat``, of a timestamp in its internal form."""
    seconds, _, rest = timestamp.partition(".")
    return "%s.%s0" % (_second(seconds), rest[:5])


@functools.lru_cache(1024)
def _second(text):
    return datetime.datetime.fromtimestamp(int(text), datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S")


def _least(one, other):
    return other if one is None else one if other is None else min(one, other)
