"""Cluster snapshots in a directory: what ``dog cluster snapshot`` saves and loads.

The format is the C project's, version 1, so either dog reads what the other wrote.  All
numbers are little-endian::

    objects/<2 hex>/<38 hex>    some bytes, named by their SHA-1
    user_snap                   a header and a record for each snapshot

    Header:                     Record:
    0      4    0xfee1c001      0      4    index, from 1 on
    4      4    version  1      4      256  tag
    8      1    copies          260    4    unused
    9      1    copy policy     264    8    time, in seconds since 1970
    10     1    object shift    272    20   SHA-1 of the trunk
    11     21   unused          292    4    unused

A *trunk* lists the objects of a snapshot: id (8 bytes), copies, copy policy, object shift,
unused (1 byte each), and the SHA-1 (20 bytes) of the list of its slices: the SHA-1s of its
content, 128 KiB after 128 KiB.
"""

import hashlib
import os
import tempfile
import time
from struct import Struct
from typing import NamedTuple

from sheepstack.dog.exits import Exit, Failure
from sheepstack.wire.text import pad, unpad

MAGIC = 0xFEE1C001
VERSION = 1
SLICE_SIZE = 128 << 10
TAG_LENGTH = 256

_HEADER = Struct("<IIBBB21x")
_RECORD = Struct("<I256s4xQ20s4x")
_ENTRY = Struct("<QBBBx20s")
_DIGEST_SIZE = 20


class Defaults(NamedTuple):
    """How the cluster kept its objects when its first snapshot was saved."""

    copies: int
    copy_policy: int
    block_size_shift: int


class Saved(NamedTuple):
    """A snapshot of the cluster."""

    index: int
    tag: str
    time: int
    trunk: bytes


class Entry(NamedTuple):
    """An object in a trunk."""

    oid: int
    copies: int
    copy_policy: int
    block_size_shift: int
    digest: bytes


class Farm:
    """The directory ``path``, which is made where there is none.  Methods raise Failure."""

    def __init__(self, path: str):
        self._objects = os.path.join(path, "objects")
        self._log = os.path.join(path, "user_snap")
        try:
            for number in range(256):
                os.makedirs(os.path.join(self._objects, "%02x" % number), exist_ok=True)
            with open(self._log, "ab"):
                pass
        except OSError as error:
            raise Failure("Cannot use %s: %s" % (path, error.strerror),
                          code=Exit.SYSFAIL) from None

    # -- the list of snapshots -------------------------------------------------------------

    def read_log(self) -> tuple:
        """(:class:`Defaults` or None, [:class:`Saved`])."""
        with open(self._log, "rb") as file:
            data = file.read()
        if not data:
            return None, []
        records = data[_HEADER.size:]
        if len(data) < _HEADER.size or len(records) % _RECORD.size:
            raise Failure("%s is cut" % self._log, code=Exit.SYSFAIL)
        magic, version, *defaults = _HEADER.unpack_from(data)
        if (magic, version) != (MAGIC, VERSION):
            raise Failure("%s is no list of cluster snapshots" % self._log, code=Exit.SYSFAIL)
        return Defaults(*defaults), [
            Saved(index, unpad(tag), seconds, trunk)
            for index, tag, seconds, trunk in _RECORD.iter_unpack(records)]

    def find(self, name: str) -> Saved:
        """The snapshot with this tag, or with this index."""
        for saved in self.read_log()[1]:
            if saved.tag == name or str(saved.index) == name:
                return saved
        raise Failure("Snapshot index or tag does not exist.", code=Exit.SYSFAIL)

    def append(self, tag: str, entries, defaults: Defaults) -> None:
        """Add a snapshot of these objects: all of them are there."""
        before, records = self.read_log()
        trunk = self._put(b"".join(_ENTRY.pack(*entry) for entry in entries))
        record = _RECORD.pack(len(records) + 1, pad(tag, TAG_LENGTH), int(time.time()), trunk)
        with open(self._log, "ab") as file:
            if before is None:
                file.write(_HEADER.pack(MAGIC, VERSION, *defaults))
            file.write(record)
            file.flush()
            os.fsync(file.fileno())

    def trunk(self, saved: Saved) -> list:
        """[:class:`Entry`] of a snapshot."""
        data = self._get(saved.trunk)
        if len(data) % _ENTRY.size:
            raise Failure("The list of objects of snapshot %s is cut" % saved.tag,
                          code=Exit.SYSFAIL)
        return [Entry(*fields) for fields in _ENTRY.iter_unpack(data)]

    # -- objects ---------------------------------------------------------------------------

    def put_object(self, data) -> bytes:
        """Keep the content of an object; its digest."""
        view = memoryview(data)
        return self._put(b"".join(self._put(view[start:start + SLICE_SIZE])
                                  for start in range(0, len(view), SLICE_SIZE)))

    def get_object(self, digest: bytes, length: int | None = None) -> bytes:
        """The content of an object, or about as much of its beginning as ``length``."""
        slices = self._get(digest)
        count = len(slices) // _DIGEST_SIZE
        if length is not None:
            count = min(count, -(-length // SLICE_SIZE))
        return b"".join(
            self._get(slices[start:start + _DIGEST_SIZE])
            for start in range(0, count * _DIGEST_SIZE, _DIGEST_SIZE))

    def _path(self, digest):
        name = digest.hex()
        return os.path.join(self._objects, name[:2], name[2:])

    def _put(self, data):
        digest = hashlib.sha1(data).digest()
        path = self._path(digest)
        if not os.path.exists(path):
            try:
                # Never seen unfinished: others may be saving the same bytes just now.
                with tempfile.NamedTemporaryFile(
                        dir=os.path.dirname(path), delete=False) as file:
                    file.write(data)
                os.rename(file.name, path)
            except OSError as error:
                raise Failure("Cannot write %s: %s" % (path, error.strerror),
                              code=Exit.SYSFAIL) from None
        return digest

    def _get(self, digest):
        path = self._path(digest)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise Failure("Cannot read %s: %s" % (path, error.strerror),
                          code=Exit.SYSFAIL) from None
        if hashlib.sha1(data).digest() != digest:
            raise Failure("%s is damaged" % path, code=Exit.SYSFAIL)
        return data
