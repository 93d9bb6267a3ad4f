"""NUL-padded names on the wire."""

from sheepstack.wire.errors import LocalProtocolError


def pad(text: str, length: int) -> bytes:
    """``text`` as UTF-8 in ``length`` bytes, at least one NUL at the end.

    Raises :class:`LocalProtocolError` where it does not fit or holds a NUL.
    """
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) >= length:
        raise LocalProtocolError("'%s' is longer than %d bytes" % (text, length - 1))
    if b"\0" in raw:
        raise LocalProtocolError("a name cannot hold a NUL byte")
    return raw.ljust(length, b"\0")


def unpad(raw: bytes) -> str:
    """The text in front of the first NUL; bytes that are not UTF-8 survive a round trip."""
    return bytes(raw).partition(b"\0")[0].decode("utf-8", "surrogateescape")
