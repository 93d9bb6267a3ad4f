"""A small value that is replaced as a whole or not at all, even on a full disk.

The file is as long as it will ever be from the beginning.  It has two slots of 16,384 bytes;
a new value goes into the one that does not hold the newest.  A slot, little-endian::

    offset  size  field
    0       8     magic "sheepval"
    8       4     version of this format, 1
    12      4     length of the value
    16      8     generation; the greater one is the newer
    24      4     CRC-32C of the 24 bytes in front and the value
    28            value
"""

import os
from struct import Struct

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store.errors import BadStore, from_os_error
from sheepstack.wire.checksum import crc32c

SLOT_SIZE = 16384
_HEADER = Struct("<8sIIQ")
_CRC = Struct("<I")
_VALUE_AT = _HEADER.size + _CRC.size
_MAGIC = b"sheepval"
_VERSION = 1

#: Bytes that fit.
CAPACITY = SLOT_SIZE - _VALUE_AT


class SlotFile:
    """``value`` is the bytes that were stored last, None in a new file.

    Raises BadStore where nothing in the file is whole, NoSpace, StoreIOError.
    """

    def __init__(self, path):
        self._path = path
        self._generation = 0
        self.value = None
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._load()
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise from_os_error(error, "cannot open %s" % path) from error

    def _load(self):
        raw = disk.read_at(self._fd, 2 * SLOT_SIZE, 0)
        if len(raw) < 2 * SLOT_SIZE:
            disk.write_fully(self._fd, bytes(2 * SLOT_SIZE - len(raw)), len(raw))
        for start in (0, SLOT_SIZE):
            generation, value = _read_slot(memoryview(raw)[start:start + SLOT_SIZE])
            if generation > self._generation:
                self._generation, self.value = generation, value
        if self.value is None and any(raw):
            raise BadStore("%s is damaged" % self._path)

    def replace(self, value):
        """Stores ``value``, bytes; durable on return.  Raises NoSpace, StoreIOError;
        ValueError for more than ``CAPACITY`` bytes.
        """
        if len(value) > CAPACITY:
            raise ValueError("%d bytes do not fit into %s" % (len(value), self._path))
        generation = self._generation + 1
        head = _HEADER.pack(_MAGIC, _VERSION, len(value), generation)
        slot = head + _CRC.pack(crc32c(value, crc32c(head))) + value
        try:
            disk.write_fully(self._fd, slot, SLOT_SIZE * (generation % 2))
            runtime.offload(os.fdatasync, self._fd)
        except OSError as error:
            raise from_os_error(error, "cannot write %s" % self._path) from error
        self._generation, self.value = generation, value

    def close(self):
        os.close(self._fd)


def _read_slot(raw):
    if len(raw) < _VALUE_AT:
        return 0, None
    magic, version, length, generation = _HEADER.unpack_from(raw)
    if (magic, version) != (_MAGIC, _VERSION) or length > CAPACITY:
        return 0, None
    value = bytes(raw[_VALUE_AT:_VALUE_AT + length])
    if _CRC.unpack_from(raw, _HEADER.size)[0] != crc32c(value, crc32c(raw[:_HEADER.size])):
        return 0, None
    return generation, value
