"""Sizes as people write them: ``512``, ``1.5G``, ``10T``."""

import re

from sheepstack.dog.exits import UsageError

_PATTERN = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)([bBkKmMgGtTpP]?)\Z")
_SHIFTS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def parse_size(text: str) -> int:
    """Bytes, fractions cut off; raises :class:`UsageError` for what is no size."""
    match = _PATTERN.match(text)
    if not match:
        raise UsageError(
            "Invalid size '%s'" % text,
            "You may use B, K, M, G, T or P suffixes for bytes, kilobytes, megabytes, "
            "gigabytes, terabytes and petabytes.")
    number, suffix = match.groups()
    shift = _SHIFTS[suffix.lower()]
    if number[:2].lower() == "0x":
        return int(number, 16) << shift
    whole, _, fraction = number.partition(".")
    scale = 10 ** len(fraction)
    return (int((whole + fraction) or "0") << shift) // scale
