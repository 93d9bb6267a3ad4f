"""The VDIs: which of them this process writes to, and those of the others, to read.

A volume's name, kind and key are in the database, and in an attribute of its VDI for the day
the database is lost.
"""

import json
import logging
import secrets
import threading
import time
import uuid
from typing import NamedTuple

import sqlalchemy as sa

from sheepstack.client import NoSuchAttribute
from swift_middleware.database.schema import extent, pack, stray, volume

log = logging.getLogger(__name__)

SLOT_SHIFT = 22
SLOT_SIZE = 1 << SLOT_SHIFT
SLOTS = 1 << 20
LOG, BULK = "log", "bulk"

#: How packs are sealed: by their writers, and in the place of one that seems to be dead.
_SEALED, SEALED_FOR_HIM = 1, 2
SEALED = (_SEALED, SEALED_FOR_HIM)

_PREFIX = "swift-"
_ATTRIBUTE = "swift"
_KEY_SIZE = 32


class Fenced(Exception):
    """This process was taken for dead, and its volumes were given to others."""


class Descriptor(NamedTuple):
    """What a volume is.  ``copies``: a copy policy, "" for the cluster's default."""

    id: int
    name: str
    kind: str
    copies: str
    key: bytes


class Volumes:
    """``lease``: seconds after which this process counts as dead where it does not renew."""

    def __init__(self, cluster, database, lease):
        self.cluster = cluster
        self.owner = uuid.uuid4().hex
        self._database = database
        self._lease = lease
        self._lock = threading.Lock()
        self._known = {}
        self._open = {}

    # -- reading

    def describe(self, ident) -> Descriptor:
        """Raises KeyError where there is no such volume."""
        found = self._known.get(ident)
        if found is None:
            row = self._database.read(_row_of, ident)
            if row is None:
                raise KeyError(ident)
            found = self._known[ident] = _descriptor(self.cluster, row.name, row.id)
        return found

    def vdi(self, ident):
        """The open VDI of any volume; not to be closed.  Raises SheepError."""
        found = self._open.get(ident)
        if found is None:
            name = self.describe(ident).name
            with self._lock:
                found = self._open.get(ident)
                if found is None:
                    found = self._open[ident] = self.cluster.open_vdi(name, lock=False)
        return found

    def vdi_with(self, ident, offset, length):
        """The open VDI, knowing the bytes there: another process may have just made them."""
        vdi = self.vdi(ident)
        if any(not is_data for _, _, is_data in vdi.extents(offset, length)):
            vdi.reload()
        return vdi

    def read(self, ident, offset, length) -> bytes:
        return self.vdi_with(ident, offset, length).pread(offset, length)

    def forget(self, ident):
        """The volume is not there any more."""
        self._known.pop(ident, None)
        vdi = self._open.pop(ident, None)
        if vdi is not None:
            vdi.close()

    # -- writing

    def acquire(self, kind, copies):
        """A volume of that kind for this process alone: (:class:`Descriptor`, next slot)."""
        self._database.write(release_dead, time.time())
        row = self._database.write(
            _adopt, kind, copies, self.owner, time.time() + self._lease)
        if row is None:
            name = "%s%s-%s" % (_PREFIX, kind, uuid.uuid4().hex)
            self.cluster.create_vdi(name, SLOTS << SLOT_SHIFT, policy=copies or None,
                                    block_size_shift=SLOT_SHIFT)
            self.cluster.setattr(name, _ATTRIBUTE, json.dumps({
                "kind": kind, "copies": copies,
                "key": secrets.token_hex(_KEY_SIZE)}).encode())
            row = self._database.write(
                _register, name, kind, copies, self.owner, time.time() + self._lease)
        return self.describe(row.id), row.next_slot

    def renew(self):
        """Say that this process is alive."""
        self._database.write(_renew, self.owner, time.time() + self._lease)

    def release(self):
        """Give all volumes back, for others to go on with."""
        self._database.write(_give_back, self.owner, time.time())

    def headers(self):
        """Of the VDIs that are volumes, or were to be."""
        return (header for header in self.cluster.list_vdis()
                if header.name.startswith(_PREFIX) and not header.is_snapshot)

    def found(self):
        """The :class:`Descriptor` of every volume that the cluster has, with id 0."""
        for header in self.headers():
            try:
                yield _descriptor(self.cluster, header.name)
            except NoSuchAttribute:
                # Its maker died before he could say what it is, or write to it.
                log.warning("VDI '%s' is no volume", header.name)


def _descriptor(cluster, name, ident=0):
    told = json.loads(cluster.getattr(name, _ATTRIBUTE))
    return Descriptor(ident, name, told["kind"], told["copies"], bytes.fromhex(told["key"]))


def _row_of(connection, ident):
    return connection.execute(sa.select(volume).where(volume.c.id == ident)).first()


def _register(connection, name, kind, copies, owner, lease):
    connection.execute(volume.insert().values(
        name=name, kind=kind, copies=copies, owner=owner, lease=lease, next_slot=0))
    return connection.execute(sa.select(volume).where(volume.c.name == name)).one()


def _adopt(connection, kind, copies, owner, lease):
    row = connection.execute(
        sa.select(volume)
        .where(volume.c.kind == kind, volume.c.copies == copies, volume.c.owner == "",
               volume.c.next_slot < SLOTS // 2)
        .order_by(volume.c.id).limit(1).with_for_update(skip_locked=True)).first()
    if row is not None:
        connection.execute(volume.update().where(volume.c.id == row.id).values(
            owner=owner, lease=lease))
    return row


def _renew(connection, owner, lease):
    connection.execute(volume.update().where(volume.c.owner == owner).values(lease=lease))


def _give_back(connection, owner, now):
    _release(connection, _held(connection, volume.c.owner == owner), now, _SEALED)


def release_dead(connection, now):
    """Take their volumes from processes that are dead, or seem to be.

    What they were writing to is given back; and as one that was stopped, or cut off, may go
    on with it at any later time, it is not forgotten then.
    """
    idents = _held(connection, sa.and_(volume.c.owner != "", volume.c.lease < now))
    if not idents:
        return
    connection.execute(stray.insert().from_select(
        ["volume", "slot", "count", "since", "due"],
        sa.select(extent.c.volume, extent.c.slot, extent.c.count, sa.literal(now),
                  sa.literal(now)).where(extent.c.volume.in_(idents), extent.c.freed.is_(None))))
    _release(connection, idents, now, SEALED_FOR_HIM)


def _held(connection, which) -> list:
    """Ids of volumes that stay as they are until the transaction ends."""
    return connection.execute(
        sa.select(volume.c.id).where(which).order_by(volume.c.id).with_for_update()
    ).scalars().all()


def _release(connection, idents, now, sealed):
    connection.execute(volume.update().where(volume.c.id.in_(idents)).values(owner=""))
    connection.execute(pack.update().where(pack.c.volume.in_(idents), pack.c.sealed == 0).values(
        sealed=sealed, changed=now))
    connection.execute(extent.update().where(
        extent.c.volume.in_(idents), extent.c.freed.is_(None)).values(freed=now))


def check_owned(connection, idents, owner):
    """Raises :class:`Fenced` unless ``owner`` still has these volumes; he keeps them until the
    transaction ends."""
    held = connection.execute(
        sa.select(volume.c.id).where(volume.c.id.in_(idents), volume.c.owner == owner)
        .order_by(volume.c.id).with_for_update(read=True)).scalars().all()
    if set(held) != set(idents):
        raise Fenced("this process was taken for dead")
