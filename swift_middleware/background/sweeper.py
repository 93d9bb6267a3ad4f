"""Gives back the space that nobody needs any more.

Bytes of large objects are given back slot by slot.  Small ones share slots with others: such
a slot is given back when nothing in it is needed any more, and what is still needed in a slot
that is mostly garbage is moved into a new one.
"""

import logging
import time
from typing import NamedTuple

import sqlalchemy as sa
from swift.common.utils import Timestamp

from swift_middleware.database import changes, ledger, queries
from swift_middleware.database.schema import container, extent, pack, stray, tombstone
from swift_middleware.storage import record, rows
from swift_middleware.storage.volumes import (
    SEALED, SEALED_FOR_HIM, SLOT_SHIFT, SLOT_SIZE, release_dead)

log = logging.getLogger(__name__)

_EXTENTS_AT_ONCE = 256
_PACKS_AT_ONCE = 64
_COMPACTED_AT_ONCE = 8
_TOMBSTONES_AT_ONCE = 1000

#: Seconds for which at least one is expected back who was taken for dead.
_STRAYS_AT_LEAST = 86400


class Report(NamedTuple):
    """``slots``: given back, also such as somebody wrote to who was taken for dead.  ``moved``:
    records.  ``forgotten``: tombstones, and containers and accounts that were deleted."""

    slots: int = 0
    moved: int = 0
    forgotten: int = 0

    @property
    def is_clean(self) -> bool:
        return not any(self)


def sweep(store, options) -> Report:
    """One round, of bounded length: a report that is not clean asks for another."""
    now = time.time()
    before = now - options.grace
    store.database.write(release_dead, now)
    return Report(
        _free_extents(store, before) + _free_packs(store, before)
        + _free_strays(store, now, options),
        _compact(store, before, now - options.reclaim_age / 2),
        _forget_tombstones(store, now - options.reclaim_age)
        + _forget_containers(store, now - options.reclaim_age))


def _free_extents(store, before):
    found = store.database.read(_freed_extents, before)
    by_volume = {}
    for row in found:
        by_volume.setdefault(row.volume, []).append(row)
    for ident, extents in by_volume.items():
        vdi = store.volumes.vdi(ident)
        # Others write to it.
        vdi.reload()
        for row in extents:
            # Also what a process that was killed had made and not entered in the map yet.
            vdi.discard(row.slot << SLOT_SHIFT, row.count << SLOT_SHIFT, thorough=True)
        store.database.write(_forget_extents, extents)
    return sum(row.count for row in found)


def _freed_extents(connection, before):
    return connection.execute(sa.select(extent).where(
        extent.c.freed <= before).limit(_EXTENTS_AT_ONCE)).all()


def _forget_extents(connection, extents):
    connection.execute(
        extent.delete().where(extent.c.volume == sa.bindparam("v"),
                              extent.c.slot == sa.bindparam("s")),
        [{"v": row.volume, "s": row.slot} for row in extents])


def _free_packs(store, before):
    found = store.database.search(_packs, sa.and_(
        pack.c.sealed.in_(SEALED), pack.c.live == 0, pack.c.changed <= before), _PACKS_AT_ONCE)
    for ident in sorted({row.volume for row in found}):
        store.volumes.vdi(ident).reload()
    for row in found:
        store.volumes.vdi(row.volume).discard(
            row.slot << SLOT_SHIFT, SLOT_SIZE, thorough=True)
        store.database.write(_forget_pack, row)
    return len(found)


def _packs(connection, which, limit):
    return connection.execute(sa.select(pack).where(which).limit(limit)).all()


def _forget_pack(connection, row):
    done = connection.execute(pack.delete().where(
        pack.c.volume == row.volume, pack.c.slot == row.slot, pack.c.live == 0))
    if done.rowcount and row.sealed == SEALED_FOR_HIM:
        now = time.time()
        connection.execute(stray.insert().values(
            volume=row.volume, slot=row.slot, count=1, since=now, due=now))


def _free_strays(store, now, options):
    """Give back once more what one may have written to who is not dead; the slots where he has.

    No slot is ever used twice, so nobody else can be meant.  The longer nothing comes, the less
    often it is looked for.
    """
    found = store.database.read(_due_strays, now)
    for ident in sorted({row.volume for row in found}):
        store.volumes.vdi(ident).reload()
    slots = 0
    for row in found:
        vdi = store.volumes.vdi(row.volume)
        offset, length = row.slot << SLOT_SHIFT, row.count << SLOT_SHIFT
        slots += sum(size for _, size, is_data in vdi.extents(offset, length)
                     if is_data) >> SLOT_SHIFT
        vdi.discard(offset, length, thorough=True)
    if slots:
        log.warning("somebody who was taken for dead has written to %d slots since", slots)
    store.database.write(_look_later, found, now, options)
    return slots


def _due_strays(connection, now):
    return connection.execute(sa.select(stray).where(
        stray.c.due <= now).order_by(stray.c.due).limit(_EXTENTS_AT_ONCE)).all()


def _look_later(connection, strays, now, options):
    for row in strays:
        same = sa.and_(stray.c.volume == row.volume, stray.c.slot == row.slot)
        if now - row.since > max(options.reclaim_age, _STRAYS_AT_LEAST):
            connection.execute(stray.delete().where(same))
        else:
            connection.execute(stray.update().where(same).values(
                due=now + max(options.lease, now - row.since)))


# -- compaction


def _compact(store, before, old):
    sparse = pack.c.live_bytes < SLOT_SIZE // 2
    # What is dead for long goes, so that no record outlives the tombstone that hides it.
    stale = sa.and_(pack.c.dead > 0, pack.c.changed <= old)
    found = store.database.search(_packs, sa.and_(
        pack.c.sealed.in_(SEALED), pack.c.live > 0, pack.c.changed <= before,
        sa.or_(sparse, stale)), _COMPACTED_AT_ONCE)
    return sum(_compact_pack(store, row.volume, row.slot) for row in found)


def _compact_pack(store, ident, slot):
    """Move what is still needed out of a slot; how many records."""
    key = store.volumes.describe(ident).key
    start = slot << SLOT_SHIFT
    content = store.volumes.read(ident, start, SLOT_SIZE)
    moved = 0
    for _, found in record.scan(key, content):
        try:
            moved += _MOVERS[found.row["t"]](store, found.row, (ident, slot), content)
        except ledger.Refused:
            # It changed meanwhile, and with that it moved.
            continue
    if not moved:
        store.database.write(_leave_pack, ident, slot)
    return moved


def _leave_pack(connection, ident, slot):
    """Look at others first."""
    connection.execute(pack.update().where(pack.c.volume == ident, pack.c.slot == slot).values(
        changed=time.time()))


def _move_object(store, told, place, content):
    names = told["a"].encode(), told["c"].encode()
    row = queries.find_object(store.database, *names, told["row"]["name"].encode())
    if not queries.is_object(row) or place not in ledger.packs_of(row):
        return 0
    policy = store.database.read(queries.find_container, *names)["policy"]
    data = ()
    if row["data_volume"] is not None and row["extents"] is None:
        data = list(store.read(row, 0, row["size"]))
    store.change_object(*names, policy, row, dict(row), data)
    return 1


def _move_tombstone(store, told, place, content):
    names = told["a"].encode(), told["c"].encode()
    row = store.database.read(queries.find_tombstone, *names, told["row"]["name"].encode())
    if row is None or place not in ledger.packs_of(row):
        return 0
    store.log(0).append(
        changes.MoveTombstone(*names, row),
        rows.of_tombstone(*names, row["name"], row["timestamp"]))
    return 1


def _move_container(store, told, place, content):
    row = store.database.read(
        queries.find_container, told["row"]["account"].encode(), told["row"]["name"].encode())
    if row is None or place not in ledger.packs_of(row):
        return 0
    kept = {key: value for key, value in row.items()
            if key not in ("id", "objects", "bytes", "log_volume", "log_slot")}
    store.log(0).append(changes.MoveContainer(kept, place), rows.of_container(kept))
    return 1


def _move_account(store, told, place, content):
    row = store.database.read(queries.find_account, told["row"]["name"].encode())
    if row is None or place not in ledger.packs_of(row):
        return 0
    kept = {key: value for key, value in row.items()
            if key not in ("log_volume", "log_slot")}
    store.put_account(kept, place)
    return 1


_MOVERS = {"object": _move_object, "tombstone": _move_tombstone, "container": _move_container,
           "account": _move_account}


# -- what was deleted long ago


def _forget_tombstones(store, before):
    found = store.database.read(
        queries.old_tombstones, Timestamp(max(0, before)).internal, _TOMBSTONES_AT_ONCE)
    forgotten = 0
    for account_name, container_name, row in found:
        try:
            store.committer.commit(changes.ForgetTombstone(account_name, container_name, row))
            forgotten += 1
        except ledger.Refused:
            continue
    return forgotten


def _forget_containers(store, before):
    found = store.database.read(
        _old_containers, Timestamp(max(0, before)).internal, _TOMBSTONES_AT_ONCE)
    forgotten = 0
    for row in found:
        try:
            store.committer.commit(changes.ForgetContainer(row))
            forgotten += 1
        except ledger.Refused:
            continue
    return forgotten


def _old_containers(connection, before, limit):
    remembered = sa.exists().where(tombstone.c.container == container.c.id)
    return [dict(row) for row in connection.execute(sa.select(container).where(
        container.c.deleted == 1, container.c.delete_timestamp < before,
        sa.not_(remembered)).limit(limit)).mappings()]
