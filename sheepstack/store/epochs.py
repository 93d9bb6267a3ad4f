"""Past cluster maps, one small file each, whatever their bytes mean.

A file, little-endian::

    offset  size  field
    0       8     magic "sheepmap"
    8       4     version of this format, 1
    12      4     CRC-32C of the map
    16            the map
"""

import os
from struct import Struct

from sheepstack import runtime
from sheepstack.store import disk
from sheepstack.store.errors import StoreIOError, from_os_error
from sheepstack.wire.checksum import crc32c

_HEADER = Struct("<8sII")
_MAGIC = b"sheepmap"
_VERSION = 1


class Epochs:
    """The records in the directory ``path``, which exists."""

    def __init__(self, path):
        self._path = path

    def _name(self, epoch):
        if not 0 <= epoch < 1 << 32:
            raise ValueError("%r is no epoch" % (epoch,))
        return os.path.join(self._path, "%08d" % epoch)

    def put(self, epoch, data):
        """Keeps ``data`` (bytes) as the map of ``epoch``; durable on return.

        An earlier record of the epoch is replaced.  Raises NoSpace, StoreIOError, and then
        what was there is still there.
        """
        name = self._name(epoch)
        raw = _HEADER.pack(_MAGIC, _VERSION, crc32c(data)) + data
        fresh = os.path.join(self._path, "new.%d" % epoch)
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                disk.write_fully(fd, raw, 0)
                runtime.offload(os.fsync, fd)
            finally:
                os.close(fd)
            os.rename(fresh, name)
            disk.sync_directory(self._path)
        except OSError as error:
            try:
                os.unlink(fresh)
            except OSError:
                pass
            raise from_os_error(error, "cannot keep the map of epoch %d" % epoch) from error

    def get(self, epoch):
        """The map of ``epoch`` (bytes), None where there is none; StoreIOError: damaged."""
        try:
            with open(self._name(epoch), "rb") as source:
                raw = source.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, "cannot read the map of epoch %d" % epoch) from error
        data = raw[_HEADER.size:]
        if len(raw) < _HEADER.size or _HEADER.unpack_from(raw) != (
                _MAGIC, _VERSION, crc32c(data)):
            raise StoreIOError("the map of epoch %d is damaged" % epoch)
        return data

    def list(self) -> list:
        """The epochs of which there is a record, ascending."""
        return sorted(int(name) for name in os.listdir(self._path) if name.isdecimal())

    def last(self):
        """The newest epoch on record, None where there is none."""
        epochs = self.list()
        return epochs[-1] if epochs else None

    def drop(self, epoch):
        """Forgets the map of ``epoch``."""
        try:
            os.unlink(self._name(epoch))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os_error(error, "cannot drop the map of epoch %d" % epoch) from error
