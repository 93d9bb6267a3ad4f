"""The store itself: what glance_store asks of a backend."""

import contextlib
import logging

from glance_store import capabilities, driver, exceptions
from oslo_utils import units

from glance_store_driver import download, unfinished
from glance_store_driver.errors import translated
from glance_store_driver.location import SCHEME, StoreLocation
from glance_store_driver.options import OPTIONS
from glance_store_driver.upload import HashedStream
from sheepstack.client import (
    Cluster, NoSuchTag, NoSuchVdi, SheepError, VdiExists, parse_copy_policy)

LOG = logging.getLogger(__name__)

#: The tag of the snapshot that is the image.
SNAPSHOT = "snap"

#: What a VDI of unknown size grows to first; then it doubles.
_FIRST_SIZE = units.Gi


class Store(driver.Store):
    """One store, shared by all threads of a process.

    An image is the snapshot :data:`SNAPSHOT` of a VDI of its own.  The VDI itself goes once
    the snapshot is taken: nothing is left that could be written to.
    """

    _CAPABILITIES = (capabilities.BitMasks.READ_RANDOM | capabilities.BitMasks.WRITE_ACCESS |
                     capabilities.BitMasks.DRIVER_REUSABLE)
    OPTIONS = OPTIONS
    EXAMPLE_URL = "sheepdog://<cluster-uuid>/<image>/<snapshot>"

    def get_schemes(self):
        return (SCHEME,)

    # -- set-up

    _configured = None

    @property
    def _cluster(self):
        if self._configured is None:
            raise exceptions.BadStoreConfiguration(
                store_name=self._name, reason="it said why when it started")
        return self._configured

    @property
    def _name(self):
        return self.backend_group or SCHEME

    def configure_add(self):
        """Raises BadStoreConfiguration for what can be told without a cluster.

        Nothing is connected yet: the sheep may start later, and processes may still fork.
        """
        options = getattr(self.conf, self.backend_group or "glance_store")
        chunk_size = options.sheepdog_store_chunk_size
        self._prefix = options.sheepdog_store_prefix
        self._copy_policy = options.sheepdog_store_copy_policy or None
        try:
            if chunk_size is not None and chunk_size & (chunk_size - 1):
                raise ValueError("objects of %d MiB: that is no power of two" % chunk_size)
            if self._copy_policy is not None:
                parse_copy_policy(self._copy_policy)
            self._configured = Cluster(
                options.sheepdog_store_addresses, _read_key(options.sheepdog_store_auth_key_file),
                timeout=options.sheepdog_store_timeout)
        except (OSError, ValueError) as error:
            raise exceptions.BadStoreConfiguration(
                store_name=self._name, reason=error) from error
        self._block_size_shift = chunk_size and (chunk_size * units.Mi).bit_length() - 1
        self._sweeper = unfinished.Sweeper(
            self._configured, self._prefix, options.sheepdog_store_unfinished_age)
        self._url_prefix = SCHEME + "://"

    # -- reading

    @capabilities.check
    def get(self, location, offset=0, chunk_size=None, context=None):
        """(iterator of bytes, how many bytes) of an image, or of ``chunk_size`` bytes of it
        from ``offset`` on.

        Raises NotFound, RemoteServiceUnavailable and BadStoreConfiguration, as the iterator
        does.
        """
        vdi = self._open(location)
        offset = offset or 0
        length = max(0, vdi.size - offset)
        if chunk_size is not None:
            length = min(length, chunk_size)
        return _stream(vdi, offset, length), length

    def get_size(self, location, context=None):
        """Bytes of the image; raises as :meth:`get` does."""
        with self._open(location) as vdi:
            return vdi.size

    def _open(self, location):
        place = location.store_location
        with translated("read image %s" % place.image):
            self._check(place)
            return self._cluster.open_vdi(place.image, place.snapshot)

    def _check(self, place):
        """Raises NotFound for what is no image, or lies in another cluster.

        Who may tell Glance where an image lies must not get at volumes that way.
        """
        if not place.image.startswith(self._prefix) or place.snapshot != SNAPSHOT:
            raise exceptions.NotFound(
                message="%s is no image of this store" % place.get_uri())
        uuid = self._cluster.uuid()
        if place.cluster != uuid:
            raise exceptions.NotFound(
                message="Image %s lies in the sheep cluster %s, and this store in %s"
                        % (place.image, place.cluster, uuid))

    # -- writing

    @driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        """Store an image: (location, bytes, md5, multihash, metadata).

        ``image_size`` 0 or None: not known beforehand.  When anything fails, nothing of the
        image is left behind.  Raises Duplicate, Invalid where the size is another one than
        promised, StorageFull, RemoteServiceUnavailable, BadStoreConfiguration, and whatever
        ``image_file`` or ``verifier`` raises.
        """
        name = self._prefix + str(image_id)
        with translated("store image %s" % image_id):
            place = StoreLocation(
                {"cluster": self._cluster.uuid(), "image": name, "snapshot": SNAPSHOT}, self.conf)
            self._sweeper.sweep()
            vid = self._make_vdi(name, image_size)
            try:
                with unfinished.Heart(self._cluster, name) as heart, \
                        self._cluster.open_vdi(name, lock=False) as vdi, HashedStream(
                            image_file, vdi.block_size, hashing_algo, verifier) as stream:
                    _fill(vdi, stream, image_size)
                    checksum, multihash = stream.digests()
                    vdi.flush()
                    vdi.snapshot(SNAPSHOT)
                    heart.stop()
            except BaseException:
                self._remove_half(name, vid)
                raise
            self._remove_working_vdi(name)
        metadata = {"store": self.backend_group} if self.backend_group else {}
        return place.get_uri(), stream.count, checksum, multihash, metadata

    def _make_vdi(self, name, size):
        """Make the VDI of a new image; its id, which the snapshot will have."""
        while True:
            if self._snapshot_id(name) is not None:
                raise exceptions.Duplicate(image=name)
            try:
                with _room_for(name):
                    return self._cluster.create_vdi(
                        name, size or 0, policy=self._copy_policy,
                        block_size_shift=self._block_size_shift).vdi_id
            except VdiExists:
                if not unfinished.is_abandoned(self._cluster, name):
                    raise
                LOG.warning("the upload of %s was never finished: it begins anew", name)
                self._remove_working_vdi(name)

    def _snapshot_id(self, name):
        try:
            return self._cluster.lookup(name, SNAPSHOT).vdi_id
        except (NoSuchVdi, NoSuchTag):
            return None

    def _remove_half(self, name, vid):
        """Remove what there is of an image that came to nothing."""
        try:
            # It may be somebody else's who was faster.
            if self._snapshot_id(name) == vid:
                self._cluster.delete_vdi(name, SNAPSHOT)
        except SheepError as error:
            LOG.error("Snapshot %s of VDI %s, of an image that could not be stored, is left "
                      "over: %s", SNAPSHOT, name, error)
        self._remove_working_vdi(name)

    def _remove_working_vdi(self, name):
        try:
            self._cluster.delete_vdi(name)
        except NoSuchVdi:
            pass
        except SheepError as error:
            LOG.error("VDI %s is left over, you can delete it: %s", name, error)

    @capabilities.check
    def delete(self, location, context=None):
        """Delete an image; volumes that were cloned from it live on.

        Raises NotFound, RemoteServiceUnavailable and BadStoreConfiguration.
        """
        place = location.store_location
        with translated("delete image %s" % place.image):
            self._check(place)
            self._cluster.delete_vdi(place.image, place.snapshot)
            self._remove_working_vdi(place.image)


def _read_key(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def _stream(vdi, offset, length):
    with translated("read image %s" % vdi.name):
        yield from download.stream(vdi, offset, length)


@contextlib.contextmanager
def _room_for(name):
    """Sizes that the map of a VDI has no room for are StorageFull."""
    try:
        yield
    except ValueError as error:
        raise exceptions.StorageFull(
            message="Image %s does not fit: %s" % (name, error)) from error


def _fill(vdi, stream, size):
    """Write all of ``stream``; ``size`` 0 or None: however much that is.

    Raises Invalid for more or fewer bytes than ``size``, and StorageFull for more than a VDI
    has room for.
    """
    if size:
        vdi.copy_in(stream, 0, size)
        if stream.count < size or stream.read(1):
            raise exceptions.Invalid(
                message="%s bytes of an image came that should have %d"
                        % ("More" if stream.count > size else stream.count, size))
        return
    while not stream.at_end:
        with _room_for(vdi.name):
            vdi.resize(max(_FIRST_SIZE, 2 * vdi.size))
        vdi.copy_in(stream, stream.count, vdi.size - stream.count)
    vdi.resize(stream.count)
