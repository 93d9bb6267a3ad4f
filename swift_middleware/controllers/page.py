"""The body of a listing, which may have ten thousand entries."""

import json

from swift_middleware import concurrency

#: Entries after which other requests have their turn.
_TURN = 500


def of_entries(entries, listed) -> bytes:
    """A JSON array of what ``listed`` makes of each of the list ``entries``."""
    pieces = []
    for first in range(0, len(entries), _TURN):
        if first:
            concurrency.pause()
        piece = json.dumps([listed(entry) for entry in entries[first:first + _TURN]])
        pieces.append(piece[1:-1])
    return ("[%s]" % ", ".join(pieces)).encode("ascii")
