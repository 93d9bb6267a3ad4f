"""Compares what the database says with what is there."""

import time
from typing import NamedTuple

import sqlalchemy as sa

from swift_middleware.database import ledger
from swift_middleware.database.schema import account, container, extent, object, pack, tombstone, \
    volume
from swift_middleware.storage.volumes import LOG, SLOT_SHIFT

_ROWS_AT_ONCE = 1000


class Findings(NamedTuple):
    """``leaked``: (volume id, slot) that nothing in the database needs, whether the volume's map
    names it or not.  ``missing``: that something needs, and that is not there.  ``miscounted``:
    ids of containers.  ``mistaken``: (volume id, slot) of packs whose counts are wrong.
    ``strangers``: names of VDIs; ``empty``: of those among them that have nothing, as one leaves
    behind who dies while he makes them."""

    leaked: list
    missing: list
    miscounted: list
    mistaken: list
    strangers: list
    empty: list

    @property
    def is_clean(self) -> bool:
        return not any(self)

    def lines(self):
        """For people."""
        if self.is_clean:
            yield "the database and the cluster agree"
        for what, found in (
                ("slots belong to nothing", self.leaked),
                ("slots are missing", self.missing),
                ("containers have wrong counts", self.miscounted),
                ("packs have wrong counts", self.mistaken),
                ("VDIs are not in the database", self.strangers),
                ("of them are empty", self.empty)):
            if found:
                yield "%d %s: %s%s" % (len(found), what, ", ".join(map(str, found[:5])),
                                       ", ..." if len(found) > 5 else "")


def check(store) -> Findings:
    """While others make changes only what is found twice counts."""
    first, second = _look(store), _look(store)
    return Findings(*([item for item in one if item in set(other)]
                      for one, other in zip(first, second)))


def _look(store):
    known = store.database.read(lambda connection: connection.execute(sa.select(volume)).all())
    names = {row.name for row in known}
    strangers = [header for header in store.volumes.headers() if header.name not in names]
    # In this order: whatever is there at first was entered in the database before.
    there = {row.id: _used_slots(store, row) for row in known}
    needed, counted = store.database.read(_needed)
    packs, extents = store.database.read(_entered)
    logs = {row.id for row in known if row.kind == LOG}
    ends = {row.id: row.next_slot for row in known}
    leaked, missing = [], []
    for ident, used in there.items():
        entered = {slot for found, slot in packs if found == ident} if ident in logs else \
            needed.get(ident, set()) | extents.get(ident, set())
        unnamed = _unnamed_slots(store, ident, ends[ident], entered)
        leaked += [(ident, slot) for slot in sorted((used - entered).union(unnamed))]
    for ident, slots in needed.items():
        missing += [(ident, slot) for slot in sorted(slots - there.get(ident, set()))]
    mistaken = [key for key, counts in packs.items() if counts != counted.get(key, (0, 0))]
    mistaken += [key for key in counted if key not in packs]
    return Findings(leaked, missing, store.database.read(_miscounted), mistaken,
                    [header.name for header in strangers],
                    [header.name for header in strangers if _is_empty(store, header)])


def _used_slots(store, row):
    vdi = store.volumes.vdi(row.id)
    vdi.reload()
    used = set()
    for offset, length, is_data in vdi.extents(0, min(vdi.size, row.next_slot << SLOT_SHIFT)):
        if is_data:
            used.update(range(offset >> SLOT_SHIFT, (offset + length) >> SLOT_SHIFT))
    return used


def _unnamed_slots(store, ident, end, entered):
    """Slots before ``end`` that are in sheep and neither in the map nor ``entered``."""
    vdi = store.volumes.vdi(ident)
    for first, count in _gaps(sorted(entered), end):
        for offset in vdi.unnamed(first << SLOT_SHIFT, count << SLOT_SHIFT):
            yield offset >> SLOT_SHIFT


def _gaps(slots, end):
    """(first, count) of the runs below ``end`` that have none of ``slots``, which are sorted."""
    first = 0
    for slot in (*slots, end):
        if first < min(slot, end):
            yield first, min(slot, end) - first
        first = max(first, slot + 1)


def _is_empty(store, header):
    """Whether nobody has ever written to a VDI, nor is about to."""
    if (header.create_time >> 32) + store.lease > time.time():
        return False
    with store.cluster.open_vdi(header.name, read_only=True) as vdi:
        return not any(is_data for _, _, is_data in vdi.extents(0, vdi.size))


def _needed(connection):
    """What rows need: {volume id: set of slots}, and {(volume, slot): (rows, bytes)} of packs."""
    needed, counted = {}, {}
    for table in (account, container, object, tombstone):
        result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(sa.select(table))
        for row in result.mappings():
            weight = ledger.weight_of(row)
            for key in ledger.packs_of(row):
                live, size = counted.get(key, (0, 0))
                counted[key] = live + 1, size + weight
                needed.setdefault(key[0], set()).add(key[1])
            if row.get("extents"):
                slots = -(-row["size"] >> SLOT_SHIFT)
                for first, count in ledger.extents_of(row):
                    # The end of the last extent may never have been written to.
                    needed.setdefault(row["data_volume"], set()).update(
                        range(first, first + min(count, slots)))
                    slots -= count
    return needed, counted


def _entered(connection):
    packs = {(row.volume, row.slot): (row.live, row.live_bytes)
             for row in connection.execute(sa.select(pack))}
    extents = {}
    for row in connection.execute(sa.select(extent)):
        extents.setdefault(row.volume, set()).update(range(row.slot, row.slot + row.count))
    return packs, extents


def _miscounted(connection):
    counts, sizes = _sums_of_container()
    return list(connection.execute(sa.select(container.c.id).where(sa.or_(
        container.c.objects != counts, container.c.bytes != sizes))).scalars())


def _sums_of_container():
    inside = object.c.container == container.c.id
    return (
        sa.select(sa.func.count()).where(inside).scalar_subquery(),
        sa.select(sa.func.coalesce(sa.func.sum(object.c.listed_size), 0)).where(
            inside).scalar_subquery())


def repair(store, findings):
    """Have leaked slots given back by the sweeper, delete volumes that were never one, and count
    anew; nobody else should be making changes."""
    for name in findings.empty:
        store.cluster.delete_vdi(name)
    logs = {row.id for row in store.database.read(
        lambda connection: connection.execute(sa.select(volume)).all()) if row.kind == LOG}
    store.database.write(_repair, findings, logs, time.time())


def _repair(connection, findings, logs, now):
    for ident, slot in findings.leaked:
        if ident in logs:
            connection.execute(pack.insert().values(
                volume=ident, slot=slot, sealed=1, live=0, live_bytes=0, dead=1, changed=now))
        else:
            connection.execute(extent.insert().values(
                volume=ident, slot=slot, count=1, freed=now))
    if findings.miscounted:
        counts, sizes = _sums_of_container()
        connection.execute(container.update().values(objects=counts, bytes=sizes))
    if findings.mistaken:
        _, counted = _needed(connection)
        for ident, slot in findings.mistaken:
            live, size = counted.get((ident, slot), (0, 0))
            done = connection.execute(pack.update().where(
                pack.c.volume == ident, pack.c.slot == slot).values(live=live, live_bytes=size))
            if not done.rowcount:
                connection.execute(pack.insert().values(
                    volume=ident, slot=slot, sealed=1, live=live, live_bytes=size, dead=0,
                    changed=now))
