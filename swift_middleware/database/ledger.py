"""Changes to the names, many in one transaction.

Whoever changes anything in a container has its row locked for the rest of the transaction:
that is the lock of all names in it, and of its counts.  Rows are locked in the order accounts,
containers, volumes, packs, each by their keys, so that two processes never wait for each other
in a circle.

A change says what it is about in ``account``, ``container`` and ``name`` (bytes, or None), and
does it in ``apply(work)``, whose result is the change's.  It raises a :class:`Refused`, before
it has changed anything, where it cannot be done; the others of its transaction are done all
the same.
"""

import itertools

import sqlalchemy as sa

from swift_middleware.database import schema
from swift_middleware.database.schema import account, container, extent, object, pack, tombstone

_SLOT_SHIFT = 22
_QUERY_NAMES = 400


class Refused(Exception):
    """The change cannot be made.  ``found``: the row in its way, or None."""

    def __init__(self, found=None):
        super().__init__(type(self).__name__)
        self.found = found


class NotThere(Refused):
    """There is no such account, container or object."""


class Newer(Refused):
    """What is there is newer.  ``found`` has its ``timestamp``."""


class AlreadyThere(Refused):
    """There is one, and there should be none."""


class NotEmpty(Refused):
    """The container has objects."""


class Changed(Refused):
    """Somebody else was faster: look again."""


class Mismatch(Refused):
    """A condition that came with the request does not hold."""


def is_live(row) -> bool:
    """Whether an account or container is there and was not deleted."""
    return row is not None and row["put_timestamp"] >= row["delete_timestamp"]


def packs_of(row):
    """(volume, slot) of what a row needs in log volumes: its record, and its bytes if they are
    there."""
    needed = {(row["log_volume"], row["log_slot"])}
    if row.get("data_volume") is not None and row.get("extents") is None:
        needed.add((row["data_volume"], row["data_offset"] >> _SLOT_SHIFT))
    return needed


def extents_of(row):
    """(first slot, slots) of an object's bytes in a bulk volume."""
    return parse_extents(row["extents"]) if row.get("extents") else []


def parse_extents(text):
    return [tuple(map(int, part.split("+"))) for part in text.split(",")]


def weight_of(row) -> int:
    """About how many bytes a row needs in a log volume."""
    inline = row.get("size", 0) if row.get("data_volume") is not None and \
        row.get("extents") is None else 0
    return -(-(1024 + len(row.get("headers", "")) + inline) // 4096) * 4096


class Work:
    """One transaction: what it has read, locked and will write."""

    def __init__(self, connection, now):
        self.connection = connection
        self.now = now
        self._accounts = {}
        self._containers = {}
        self._objects = {}
        self._tombstones = {}
        self._written = {}
        self._buried = {}
        self._stored = {}
        self._counts = {}
        self._packs = {}
        self._freed = []
        self._settled = []
        self._sealed = []

    # -- reading, with the locks

    def load(self, changes):
        """Lock and read all that ``changes`` are about."""
        accounts = sorted({c.account for c in changes if c.account is not None
                           and (c.container is None or c.name is None)})
        for name in accounts:
            self._accounts[name] = self._one(
                sa.select(account).where(account.c.name == name).with_for_update())
        wanted = sorted({(c.account, c.container) for c in changes if c.container is not None})
        for group in _groups(wanted):
            rows = self.connection.execute(
                sa.select(container)
                .where(sa.or_(*(sa.and_(container.c.account == a, container.c.name == n)
                                for a, n in group)))
                .order_by(container.c.account, container.c.name).with_for_update())
            for row in rows.mappings():
                self._containers[row["account"], row["name"]] = dict(row)
        names = {}
        for change in changes:
            if change.name is not None:
                found = self._containers.get((change.account, change.container))
                if found is not None:
                    names.setdefault(found["id"], set()).add(change.name)
        for ident, wanted in names.items():
            for group in _groups(sorted(wanted)):
                for table, rows in ((object, self._objects), (tombstone, self._tombstones)):
                    for row in self.connection.execute(sa.select(table).where(
                            table.c.container == ident,
                            table.c.name.in_(group))).mappings():
                        rows[ident, row["name"]] = dict(row)
        self._stored = {object: set(self._objects), tombstone: set(self._tombstones)}

    def _one(self, query):
        row = self.connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    def account(self, name):
        return self._accounts.get(name)

    def container(self, account_name, name):
        return self._containers.get((account_name, name))

    def live_container(self, account_name, name):
        """Raises :class:`NotThere`."""
        row = self.container(account_name, name)
        if row is None or row["deleted"]:
            raise NotThere()
        return row

    def object(self, ident, name):
        return self._objects.get((ident, name))

    def tombstone(self, ident, name):
        return self._tombstones.get((ident, name))

    # -- changing

    def put_account(self, row):
        old = self._accounts.get(row["name"])
        self._exchange(old, row)
        if old is None:
            self.connection.execute(account.insert().values(row))
        else:
            self.connection.execute(
                account.update().where(account.c.name == row["name"]).values(row))
        self._accounts[row["name"]] = row

    def put_container(self, row):
        """``row`` without id and counts; the row's id."""
        key = row["account"], row["name"]
        old = self._containers.get(key)
        self._exchange(old, row)
        if old is None:
            row = {**row, "objects": 0, "bytes": 0}
            ident = self.connection.execute(
                container.insert().values(row)).inserted_primary_key[0]
            self._containers[key] = {**row, "id": ident}
            return ident
        self.connection.execute(
            container.update().where(container.c.id == old["id"]).values(row))
        old.update(row)
        return old["id"]

    def put_object(self, row):
        key = row["container"], row["name"]
        old = self._objects.get(key)
        if old is not None:
            self._let_go(old)
        self._count(row["container"], int(old is None),
                    row["listed_size"] - (old["listed_size"] if old else 0))
        self._need(row)
        self._objects[key] = row
        self._written[key] = row
        former = self._tombstones.pop(key, None)
        if former is not None:
            self._unneed(former)
            self._buried[key] = None

    def delete_object(self, key, buried):
        """Let a tombstone, ``buried``, stand in an object's place."""
        old = self._objects.pop(key, None)
        if old is not None:
            self._let_go(old)
            self._count(key[0], -1, -old["listed_size"])
            self._written[key] = None
        former = self._tombstones.get(key)
        if former is not None:
            self._unneed(former)
        self._need(buried)
        self._tombstones[key] = buried
        self._buried[key] = buried

    def move_object(self, row):
        """The same object, its record or its bytes at another place."""
        key = row["container"], row["name"]
        self._unneed(self._objects[key])
        self._need(row)
        self._objects[key] = self._written[key] = row

    def restore_object(self, row):
        """Put a row in place without counting; what was in its place needs nothing."""
        key = row["container"], row["name"]
        self._objects[key] = self._written[key] = row
        if self._tombstones.pop(key, None) is not None:
            self._buried[key] = None

    def restore_tombstone(self, row):
        key = row["container"], row["name"]
        self._tombstones[key] = self._buried[key] = row
        if self._objects.pop(key, None) is not None:
            self._written[key] = None

    def move_tombstone(self, row):
        key = row["container"], row["name"]
        self._exchange(self._tombstones[key], row)
        self._tombstones[key] = self._buried[key] = row

    def forget_tombstone(self, row):
        self._unneed(row)
        self._buried[row["container"], row["name"]] = None

    def forget_account(self, row):
        self._unneed(row)
        self.connection.execute(account.delete().where(account.c.name == row["name"]))

    def forget_container(self, row):
        self._unneed(row)
        self.connection.execute(container.delete().where(container.c.id == row["id"]))

    def settle(self, volume, extents):
        """Slots that were being written are an object's now."""
        self._settled += [(volume, first) for first, _ in extents]

    def free(self, volume, extents):
        """Nobody needs these slots of a bulk volume any more."""
        self._freed += [{"volume": volume, "slot": first, "count": count, "freed": self.now}
                        for first, count in extents]

    def seal(self, volume, slot):
        self._sealed.append({"v": volume, "s": slot, "t": self.now})

    def _let_go(self, row):
        self._unneed(row)
        if row["extents"]:
            self.free(row["data_volume"], extents_of(row))

    def _exchange(self, old, new):
        if old is not None:
            self._unneed(old)
        self._need(new)

    def _need(self, row):
        for key in packs_of(row):
            change = self._packs.setdefault(key, [0, 0, 0])
            change[0] += 1
            change[1] += weight_of(row)

    def _unneed(self, row):
        for key in packs_of(row):
            change = self._packs.setdefault(key, [0, 0, 0])
            change[0] -= 1
            change[1] -= weight_of(row)
            change[2] += 1

    def _count(self, ident, objects, size):
        change = self._counts.setdefault(ident, [0, 0])
        change[0] += objects
        change[1] += size

    # -- writing

    def flush(self):
        self._write_rows(object, self._written)
        self._write_rows(tombstone, self._buried)
        self._write_extents()
        self._write_counts()
        self._write_packs()

    def _write_rows(self, table, rows):
        if not rows:
            return
        self._many(
            table.delete().where(table.c.container == sa.bindparam("c"),
                                 table.c.name == sa.bindparam("n")),
            [{"c": ident, "n": name} for ident, name in rows
             if (ident, name) in self._stored[table]])
        self._many(table.insert(), [row for row in rows.values() if row is not None])

    def _write_extents(self):
        self._many(
            extent.delete().where(extent.c.volume == sa.bindparam("v"),
                                  extent.c.slot == sa.bindparam("s")),
            [{"v": volume, "s": slot} for volume, slot in self._settled])
        self._many(extent.insert(), self._freed)

    def _write_counts(self):
        self._many(
            container.update().where(container.c.id == sa.bindparam("i")).values(
                objects=container.c.objects + sa.bindparam("o"),
                bytes=container.c.bytes + sa.bindparam("b")),
            [{"i": ident, "o": objects, "b": size}
             for ident, (objects, size) in sorted(self._counts.items())])

    def _write_packs(self):
        self._many(
            pack.update().where(pack.c.volume == sa.bindparam("v"),
                                pack.c.slot == sa.bindparam("s")).values(
                live=pack.c.live + sa.bindparam("l"),
                live_bytes=pack.c.live_bytes + sa.bindparam("b"),
                dead=pack.c.dead + sa.bindparam("d"), changed=sa.bindparam("t")),
            [{"v": volume, "s": slot, "l": live, "b": size, "d": dead, "t": self.now}
             for (volume, slot), (live, size, dead) in sorted(self._packs.items())])

        self._many(
            pack.update().where(pack.c.volume == sa.bindparam("v"),
                                pack.c.slot == sa.bindparam("s"), pack.c.sealed == 0).values(
                sealed=1, changed=sa.bindparam("t")), self._sealed)

    def _many(self, statement, parameters):
        if parameters:
            self.connection.execute(statement, parameters)


def apply(connection, changes, now, check=None) -> list:
    """Make all changes; for each its result, or the :class:`Refused` that it raised.

    ``check(connection)`` is called when the rows are locked, and raises where nothing may be
    changed at all.
    """
    work = Work(connection, now)
    work.load(changes)
    if check is not None:
        check(connection)
    results = []
    for change in changes:
        try:
            results.append(change.apply(work))
        except Refused as refusal:
            results.append(refusal)
    work.flush()
    return results


def _groups(items):
    items = iter(items)
    return iter(lambda: list(itertools.islice(items, _QUERY_NAMES)), [])


def table_of(kind):
    return getattr(schema, kind)
