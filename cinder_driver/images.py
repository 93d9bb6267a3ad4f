"""Images on their way from Glance into a VDI and back, without a local copy where possible."""

import collections
import contextlib
import os

from cinder import exception
from cinder.image import image_utils
from cinder.volume import volume_utils
from oslo_utils import units

_DEPTH = 4


class _Pieces:
    """An iterator of bytes as something to be read."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def read(self, size):
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class ReadAhead:
    """An open VDI as a file to be read from its beginning, several objects ahead."""

    def __init__(self, vdi):
        self._vdi = vdi
        self._ahead = collections.deque()
        self._next = self._position = 0
        self._rest = memoryview(b"")

    def tell(self):
        return self._position

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._vdi.size}[whence]
        if base + offset != self._position:
            self._settle()
            self._position = self._next = base + offset
        return self._position

    def read(self, size=-1):
        if size is None or size < 0:
            size = self._vdi.size - self._position
        pieces = []
        while size:
            if not self._rest:
                self._rest = self._arrived()
                if not self._rest:
                    break
            pieces.append(self._rest[:size])
            self._rest = self._rest[size:]
            size -= len(pieces[-1])
            self._position += len(pieces[-1])
        return b"".join(pieces)

    def _arrived(self):
        unit = self._vdi.block_size
        while len(self._ahead) < _DEPTH and self._next < self._vdi.size:
            length = min(unit - self._next % unit, self._vdi.size - self._next)
            self._ahead.append(self._vdi.submit_pread(self._next, length))
            self._next += length
        return memoryview(self._ahead.popleft().result() if self._ahead else b"")

    def _settle(self):
        for future in self._ahead:
            future.exception()
        self._ahead.clear()
        self._rest = memoryview(b"")

    def close(self):
        self._settle()


def fetch(context, image_service, image_id, volume, vdi, nbd, passphrase=None, cipher=None):
    """Fill a volume's open VDI with an image; what lies behind its end is cleared.

    ``nbd``: a :class:`~cinder_driver.conversion.Nbd`.  ``passphrase`` and ``cipher``: encrypt
    it on its way, for LUKS.  Raises ImageUnacceptable, ImageTooBig and SheepError.
    """
    meta = image_service.show(context, image_id)
    disk_format = image_utils.fixup_disk_format(meta["disk_format"])
    image_utils.check_image_conversion_disable(disk_format, "raw", image_id, upload=False)
    packed = meta.get("container_format") == "compressed"
    local = image_utils.TemporaryImages.for_image_service(image_service).get(context, image_id)
    with contextlib.ExitStack() as stack:
        if disk_format == "raw" and not packed and passphrase is None:
            if local is None:
                source = _Pieces(image_service.download(context, image_id))
            else:
                image_utils.check_image_format(local, disk_format, image_id, run_as_root=False)
                source = stack.enter_context(open(local, "rb"))
            _fill(vdi, source, image_id)
            return
        if packed:
            local = stack.enter_context(image_utils.temporary_file(prefix="image_"))
            image_utils.fetch_to_raw(context, image_service, image_id, local, units.Mi,
                                     size=volume.size, run_as_root=False)
            disk_format = "raw"
        elif local is None:
            local = stack.enter_context(image_utils.TemporaryImages.fetch(
                image_service, context, image_id))
        data = image_utils.qemu_img_info(local, run_as_root=False)
        if disk_format == "ami":
            # It says nothing about the format of the file.
            disk_format = data.file_format
        image_utils.check_image_format(local, disk_format, image_id, data, run_as_root=False)
        image_utils.check_virtual_size(data.virtual_size, volume.size, image_id)
        if data.backing_file is not None:
            raise exception.ImageUnacceptable(
                image_id=image_id, reason="it is backed by %s" % data.backing_file)
        if disk_format == "raw" and passphrase is None:
            with open(local, "rb") as source:
                _fill(vdi, source, image_id)
            return
        if passphrase is None:
            vdi.discard(0, vdi.size)
            nbd.convert_in(local, disk_format, vdi.name)
        else:
            nbd.encrypt_in(local, disk_format, vdi.name, vdi.size, passphrase, cipher)


def _fill(vdi, source, image_id):
    try:
        end = vdi.copy_in(source)
    except ValueError as error:
        raise exception.ImageUnacceptable(image_id=image_id, reason=str(error)) from error
    if end < vdi.size:
        vdi.write_zeroes(end, vdi.size - end)
    vdi.flush()


def store(context, image_service, meta, volume, vdi, nbd):
    """Make an image of an open snapshot, in the format that ``meta`` of the image names."""
    disk_format = image_utils.fixup_disk_format(meta["disk_format"])
    image_utils.check_image_conversion_disable(disk_format, "raw", meta["id"], upload=True)
    if meta.get("container_format") == "compressed":
        with image_utils.temporary_file(prefix="volume_") as local:
            with open(local, "wb") as target:
                vdi.copy_out(target)
            volume_utils.upload_volume(context, image_service, meta, local, volume,
                                       run_as_root=False)
    elif disk_format == "raw":
        _upload(context, image_service, meta, volume, ReadAhead(vdi))
    else:
        with image_utils.temporary_file(prefix="volume_") as local:
            nbd.convert_out(vdi.name, vdi.header.tag, local, disk_format)
            with open(local, "rb") as source:
                _upload(context, image_service, meta, volume, source)


def _upload(context, image_service, meta, volume, source):
    try:
        specs = volume.volume_type.extra_specs if volume.volume_type else {}
        image_service.update(
            context, meta["id"], {}, source,
            store_id=(specs or {}).get("image_service:store_id"),
            base_image_ref=(volume.glance_metadata or {}).get("image_id"))
    finally:
        source.close()
