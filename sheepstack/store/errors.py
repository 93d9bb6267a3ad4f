"""What can go wrong in a store, each with one line that says so."""

import errno

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class StoreError(Exception):
    """Base of everything that a store raises, or hands to a ``done`` callback."""


class NoObject(StoreError):
    """There is no object ``oid``, or none of that epoch."""

    def __init__(self, oid, epoch=None):
        where = "" if epoch is None else " of epoch %d" % epoch
        super().__init__("there is no object %016x%s" % (oid, where))
        self.oid = oid


class Rotten(StoreError):
    """Stored bytes of ``oid`` are not those that were written.

    ``blocks`` are the indexes of the damaged blocks of 4,096 bytes; damage to the footer
    counts as damage to the last block.  An empty list: the file as a whole is beyond use,
    and only creating the object anew mends it.
    """

    def __init__(self, oid, blocks):
        blocks = list(blocks)
        some = ", ".join(map(str, blocks[:8])) + (", ..." if len(blocks) > 8 else "")
        super().__init__("object %016x is damaged in %s" % (
            oid, "block " + some if blocks else "its length"))
        self.oid = oid
        self.blocks = blocks


class NoSpace(StoreError):
    """The disk is full, or what is left is held back for recovery and metadata."""


class StoreIOError(StoreError):
    """The disk failed."""


class StoreLocked(StoreError):
    """Another process has the store open."""


class BadStore(StoreError):
    """The directory is no store, or one that this version cannot use."""


def from_os_error(error: OSError, what: str) -> StoreError:
    """The store's error for ``error``; ``what`` is the thing that was tried."""
    cls = NoSpace if error.errno in _FULL else StoreIOError
    return cls("%s: %s" % (what, error.strerror or error))
