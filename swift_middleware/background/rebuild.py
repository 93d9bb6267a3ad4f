"""Makes the database anew from the records in the cluster."""

import logging
import time
from typing import NamedTuple

import sqlalchemy as sa
from swift.common.utils import Timestamp

from swift_middleware.database import ledger
from swift_middleware.database.changes import Change
from swift_middleware.database.schema import account, container, object, pack, volume
from swift_middleware.storage import record, rows
from swift_middleware.storage.volumes import LOG, SLOT_SHIFT, SLOT_SIZE

log = logging.getLogger(__name__)

_AT_ONCE = 500


class NotEmptyDatabase(ValueError):
    def __init__(self):
        super().__init__("the database is not empty: rebuild makes a new one")


class Restored(NamedTuple):
    accounts: int
    containers: int
    objects: int


def rebuild(store) -> Restored:
    """Fill an empty database.  Its counts are right once :mod:`check` has repaired them.

    Raises :class:`NotEmptyDatabase`.
    """
    if store.database.read(lambda connection: connection.execute(
            sa.select(volume.c.id).limit(1)).first()) is not None:
        raise NotEmptyDatabase
    idents = {}
    for found in store.volumes.found():
        with store.cluster.open_vdi(found.name, read_only=True) as vdi:
            used = [(offset, length) for offset, length, is_data in vdi.extents(0, vdi.size)
                    if is_data]
        end = max((offset + length for offset, length in used), default=0) >> SLOT_SHIFT
        idents[found.name] = store.database.write(_register, found, end, used)
    for found in list(store.volumes.found()):
        if found.kind == LOG:
            _restore_volume(store, found, idents)
    return store.database.read(_count)


def _register(connection, found, end, used):
    ident = connection.execute(volume.insert().values(
        name=found.name, kind=found.kind, copies=found.copies, owner="", lease=0.0,
        next_slot=end)).inserted_primary_key[0]
    if found.kind == LOG:
        now = time.time()
        for offset, length in used:
            connection.execute(pack.insert(), [
                {"volume": ident, "slot": slot, "sealed": 1, "live": 0, "live_bytes": 0,
                 "dead": 1, "changed": now}
                for slot in range(offset >> SLOT_SHIFT, (offset + length) >> SLOT_SHIFT)])
    return ident


def _restore_volume(store, found, idents):
    ident = idents[found.name]
    batch = []
    with store.cluster.open_vdi(found.name, read_only=True) as vdi:
        for start, length, is_data in vdi.extents(0, vdi.size):
            if not is_data:
                continue
            for offset in range(start, start + length, SLOT_SIZE):
                content = vdi.pread(offset, SLOT_SIZE)
                for within, told in record.scan(found.key, content):
                    batch.append(_change(told, ident, offset + within, idents))
                    if len(batch) == _AT_ONCE:
                        _apply(store, batch)
                        batch = []
    _apply(store, batch)


def _apply(store, batch):
    if batch:
        outcomes = store.database.write(ledger.apply, batch, time.time())
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.warning("a record could not be restored: %r", outcome)


def _change(told, ident, offset, idents):
    place = {"log_volume": ident, "log_slot": offset >> SLOT_SHIFT}
    columns = {**rows.columns(told.row), **place}
    kind = told.row["t"]
    if kind == "account":
        return _Account(columns)
    if kind == "container":
        return _Container(columns)
    names = told.row["a"].encode(), told.row["c"].encode()
    if kind == "tombstone":
        return _Object(*names, columns, False)
    data = told.row["data"]
    columns.update(data_volume=None, data_offset=None, extents=None)
    if data == rows.INLINE:
        columns.update(data_volume=ident, data_offset=offset + told.data_offset)
    elif data is not None:
        name, data_offset, extents = data
        columns.update(data_volume=idents.get(name), data_offset=data_offset, extents=extents)
    return _Object(*names, columns, True, data == rows.INLINE)


class _Account(Change):
    def __init__(self, row):
        self.account = row["name"]
        self.row = row

    def apply(self, work):
        old = work.account(self.account)
        if old is None or _age(old) <= _age(self.row):
            work.put_account(self.row)


class _Container(Change):
    def __init__(self, row):
        self.account, self.container = row["account"], row["name"]
        self.row = row

    def apply(self, work):
        old = work.container(self.account, self.container)
        if old is None or _age(old) <= _age(self.row):
            work.put_container(self.row)


class _Object(Change):
    """An object, or a tombstone.  ``inline``: with its bytes, which are rather to be had than
    a reference to where they were at first."""

    def __init__(self, account_name, container_name, row, is_object, inline=False):
        self.account, self.container, self.name = account_name, container_name, row["name"]
        self.row = row
        self.is_object = is_object
        self.inline = inline

    def apply(self, work):
        found = work.container(self.account, self.container)
        if found is None:
            # Its own record comes later.
            zero = Timestamp.zero().internal
            work.put_container({
                "account": self.account, "name": self.container, "policy": 0,
                "created_at": zero, "put_timestamp": zero, "delete_timestamp": zero,
                "status_changed_at": zero, "deleted": 0, "headers": "{}",
                "log_volume": self.row["log_volume"], "log_slot": self.row["log_slot"]})
            found = work.container(self.account, self.container)
        key = found["id"], self.name
        row = {**self.row, "container": found["id"]}
        old, buried = work.object(*key), work.tombstone(*key)
        if buried is not None and buried["timestamp"] >= row["timestamp"]:
            return
        if old is None:
            newer = True
        elif self.is_object:
            newer = (_version(row), self.inline) > (_version(old), False)
        else:
            newer = row["timestamp"] >= old["timestamp"]
        if newer and self.is_object:
            work.restore_object(row)
        elif newer:
            work.restore_tombstone(row)


def _age(row):
    return max(row["put_timestamp"], row["delete_timestamp"])


def _version(row):
    return row["timestamp"], row["meta_timestamp"], row["type_timestamp"]


def _count(connection):
    return Restored(*(connection.execute(sa.select(sa.func.count()).select_from(table).where(
        which)).scalar() for table, which in (
            (account, sa.true()), (container, container.c.deleted == 0), (object, sa.true()))))
