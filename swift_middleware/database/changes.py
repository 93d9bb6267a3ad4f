"""The changes that there are; see :mod:`swift_middleware.database.ledger`.

``place``: (volume, slot) of the change's record, set once that is written.  ``offset``: where
the bytes that came with the record begin in that volume.
"""

from swift_middleware.database import ledger


class Change:
    account = container = name = None
    place = None
    offset = None
    fresh_extents = False

    def at_place(self, row):
        volume, slot = self.place
        return {**row, "log_volume": volume, "log_slot": slot}


class PutAccount(Change):
    """Make an account, or change it.  ``row``: without its place.  ``expected``: the place of
    the record that it follows, None where there is none."""

    def __init__(self, row, expected):
        self.account = row["name"]
        self.row = row
        self.expected = expected

    def apply(self, work):
        _check_place(work.account(self.account), self.expected)
        work.put_account(self.at_place(self.row))


class ForgetAccount(Change):
    """A deleted account whose containers are gone."""

    def __init__(self, row):
        self.account = row["name"]

    def apply(self, work):
        row = work.account(self.account)
        if row is None or ledger.is_live(row):
            raise ledger.Changed(row)
        work.forget_account(row)


class PutContainer(Change):
    """Likewise.  The result: the container's id."""

    def __init__(self, row, expected):
        self.account, self.container = row["account"], row["name"]
        self.row = row
        self.expected = expected

    def apply(self, work):
        old = work.container(self.account, self.container)
        _check_place(old, self.expected)
        if self.row["deleted"] and old is not None and old["objects"]:
            raise ledger.NotEmpty(old)
        if not self.row["deleted"] and not ledger.is_live(work.account(self.account)):
            raise ledger.NotThere()
        return work.put_container(self.at_place(self.row))


class MoveContainer(PutContainer):
    """The same container, its record at another place."""

    def apply(self, work):
        _check_place(work.container(self.account, self.container), self.expected)
        return work.put_container(self.at_place(self.row))


class ForgetContainer(Change):
    """A container that was deleted long ago."""

    def __init__(self, row):
        self.account, self.container = row["account"], row["name"]
        self.row = row

    def apply(self, work):
        found = work.container(self.account, self.container)
        if found is None or not found["deleted"] or _place_of(found) != _place_of(self.row):
            raise ledger.Changed(found)
        work.forget_container(found)


class PutObject(Change):
    """``row``: without container and place.  ``inline``: the bytes come with the record.
    ``absent``: only where there is no object yet.  The result: the former row, or None."""

    def __init__(self, account, container, row, inline, absent=False):
        self.account, self.container, self.name = account, container, row["name"]
        self.row = row
        self.inline = inline
        self.fresh_extents = row["extents"] is not None
        self.absent = absent

    def apply(self, work):
        found = work.live_container(self.account, self.container)
        key = found["id"], self.name
        row = self.at_place({**self.row, "container": found["id"]})
        if self.inline:
            row.update(data_volume=self.place[0], data_offset=self.offset)
        old = work.object(*key)
        if old is not None and old["timestamp"] == row["timestamp"] and _is_same(old, row):
            # The commit that we were not told the outcome of.
            return None
        if self.absent and old is not None and not _is_expired(old, work.now):
            raise ledger.AlreadyThere(old)
        newest = old or work.tombstone(*key)
        if newest is not None and newest["timestamp"] >= row["timestamp"]:
            raise ledger.Newer(newest)
        work.put_object(row)
        if row["extents"]:
            work.settle(row["data_volume"], ledger.extents_of(row))
        return old


class ChangeObject(Change):
    """Other metadata for an object that still is as ``old`` says."""

    def __init__(self, account, container, old, row):
        self.account, self.container, self.name = account, container, row["name"]
        self.old = old
        self.row = row

    def apply(self, work):
        found = work.object(self.old["container"], self.name)
        if found is None or not _is_same(found, self.old):
            raise ledger.Changed(found)
        row = self.at_place(self.row)
        if self.offset is not None:
            row.update(data_volume=self.place[0], data_offset=self.offset)
        work.move_object(row)


class DeleteObject(Change):
    """``delete_at``: only an object that expires then.  The result: the former row, or None."""

    def __init__(self, account, container, name, timestamp, delete_at=None):
        self.account, self.container, self.name = account, container, name
        self.timestamp = timestamp
        self.delete_at = delete_at

    def apply(self, work):
        found = work.live_container(self.account, self.container)
        key = found["id"], self.name
        old = work.object(*key)
        newest = old or work.tombstone(*key)
        if self.delete_at is not None and newest is None:
            raise ledger.NotThere()
        if newest is not None and newest["timestamp"] >= self.timestamp:
            raise ledger.Newer(newest)
        if self.delete_at is not None and (old or {}).get("delete_at") != self.delete_at:
            raise ledger.Mismatch(old)
        work.delete_object(key, self.at_place({
            "container": key[0], "name": self.name, "timestamp": self.timestamp}))
        return old


class ForgetTombstone(Change):
    def __init__(self, account, container, row):
        self.account, self.container, self.name = account, container, row["name"]
        self.row = row

    def apply(self, work):
        found = work.tombstone(self.row["container"], self.name)
        if found is None or found["timestamp"] != self.row["timestamp"]:
            raise ledger.Changed(found)
        work.forget_tombstone(found)


class MoveTombstone(ForgetTombstone):
    """The record of a tombstone is at another place now."""

    def apply(self, work):
        found = work.tombstone(self.row["container"], self.name)
        if found is None or _place_of(found) != _place_of(self.row):
            raise ledger.Changed(found)
        work.move_tombstone(self.at_place(found))


class FreeExtents(Change):
    """Slots that were being written, and will not be an object's."""

    def __init__(self, volume, extents):
        self.volume = volume
        self.extents = extents

    def apply(self, work):
        work.settle(self.volume, self.extents)
        work.free(self.volume, self.extents)


class SealPack(Change):
    """Nothing more will be written to a slot of a log volume."""

    def __init__(self, volume, slot):
        self.volume = volume
        self.slot = slot

    def apply(self, work):
        work.seal(self.volume, self.slot)


def _place_of(row):
    return row["log_volume"], row["log_slot"]


def _check_place(row, expected):
    if (_place_of(row) if row is not None else None) != expected:
        raise ledger.Changed(row)


def _is_same(one, other):
    return all(one[key] == other[key] for key in (
        "timestamp", "meta_timestamp", "type_timestamp", "data_volume", "data_offset", "extents"))


def _is_expired(row, now):
    return row["delete_at"] is not None and row["delete_at"] <= now
