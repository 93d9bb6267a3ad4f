"""What is read from the database outside of changes.  Rows are dictionaries."""

import functools

import sqlalchemy as sa

from swift_middleware.database.engine import Lookup
from swift_middleware.database.schema import account, container, object, tombstone

_LISTED = (object.c.name, object.c.timestamp, object.c.meta_timestamp, object.c.listed_size,
           object.c.listed_etag, object.c.listed_type)
_CONTAINERS_LISTED = (container.c.name, container.c.put_timestamp, container.c.objects,
                      container.c.bytes, container.c.policy)


def find_account(connection, name):
    return _one(connection, sa.select(account).where(account.c.name == name))


def find_container(connection, account_name, name):
    return _one(connection, sa.select(container).where(
        container.c.account == account_name, container.c.name == name))


def find_object(database, account_name, container_name, name):
    """The object's row, or that of the tombstone in its place, or None."""
    row = database.look_up(_OBJECT, {
        "account": account_name, "container": container_name, "name": name})
    if row is None:
        return None
    if row[0] is not None:
        return dict(zip(_OBJECT_COLUMNS, row))
    buried = row[len(_OBJECT_COLUMNS):]
    return None if buried[0] is None else dict(zip(_TOMBSTONE_COLUMNS, buried))


def _by_name(table):
    return sa.and_(table.c.container == container.c.id, table.c.name == sa.bindparam("name"))


_OBJECT_COLUMNS = tuple(object.c.keys())
_TOMBSTONE_COLUMNS = tuple(tombstone.c.keys())
_OBJECT = Lookup(
    sa.select(*object.c, *(column.label("tombstone_" + column.name) for column in tombstone.c))
    .select_from(container.outerjoin(object, _by_name(object))
                 .outerjoin(tombstone, _by_name(tombstone)))
    .where(container.c.account == sa.bindparam("account"),
           container.c.name == sa.bindparam("container"), container.c.deleted == 0))


def find_tombstone(connection, account_name, container_name, name):
    """The row of a tombstone, even in a container that was deleted, or None."""
    return _one(connection, sa.select(tombstone).join(
        container, container.c.id == tombstone.c.container).where(
        container.c.account == account_name, container.c.name == container_name,
        tombstone.c.name == name))


def is_object(row) -> bool:
    """Whether what :func:`find_object` found is an object."""
    return row is not None and "etag" in row


def account_totals(connection, name):
    """{policy index: (containers, objects, bytes)} of an account."""
    rows = connection.execute(
        sa.select(container.c.policy, sa.func.count(), sa.func.sum(container.c.objects),
                  sa.func.sum(container.c.bytes))
        .where(container.c.account == name, container.c.deleted == 0)
        .group_by(container.c.policy)).all()
    return {policy: (count, int(objects), int(size)) for policy, count, objects, size in rows}


def scan_objects(connection, ident):
    """A function for :mod:`swift_middleware.listing` over the objects of a container."""
    return functools.partial(_OBJECT_SCANS.scan, connection, {"container": ident})


def scan_containers(connection, account_name):
    """Likewise over the containers of an account."""
    return functools.partial(_CONTAINER_SCANS.scan, connection, {"account": account_name})


class _Scans:
    """The queries of listings: one for each kind of bounds, made when it is first needed.

    ``parameters``: what is bound in ``which``.  See :mod:`swift_middleware.listing`.
    """

    def __init__(self, key, columns, which):
        self._key = key
        self._columns = columns
        self._names = tuple(column.name for column in columns)
        self._which = which
        self._lookups = {}

    def scan(self, connection, parameters, low, low_included, high, reverse, limit):
        kind = low is not None, low_included, high is not None, reverse
        lookup = self._lookups.get(kind)
        if lookup is None:
            lookup = self._lookups[kind] = Lookup(self._query(*kind))
        rows = lookup.all(connection, {**parameters, "low": low, "high": high, "rows": limit})
        return [dict(zip(self._names, row)) for row in rows]

    def _query(self, has_low, low_included, has_high, reverse):
        key = self._key
        query = sa.select(*self._columns).where(self._which)
        if has_low:
            low = sa.bindparam("low")
            query = query.where(key >= low if low_included else key > low)
        if has_high:
            query = query.where(key < sa.bindparam("high"))
        return query.order_by(key.desc() if reverse else key).limit(
            sa.bindparam("rows", type_=sa.Integer))


_OBJECT_SCANS = _Scans(object.c.name, _LISTED, object.c.container == sa.bindparam("container"))
_CONTAINER_SCANS = _Scans(container.c.name, _CONTAINERS_LISTED, sa.and_(
    container.c.account == sa.bindparam("account"), container.c.deleted == 0))


def expired(connection, now, limit):
    """(account, container, object row) of objects that should be gone."""
    rows = connection.execute(
        sa.select(object, container.c.account.label("account_name"),
                  container.c.name.label("container_name"))
        .join(container, container.c.id == object.c.container)
        .where(object.c.delete_at <= now).order_by(object.c.delete_at).limit(limit))
    return [(row["account_name"], row["container_name"], dict(row)) for row in rows.mappings()]


def queued(connection, account_name, content_type, limit):
    """(container row, object row) of the objects of that type in an account, in order."""
    found = connection.execute(
        sa.select(container).where(container.c.account == account_name, container.c.deleted == 0,
                                   container.c.objects > 0)
        .order_by(container.c.name).limit(limit)).mappings().all()
    for box in found:
        rows = connection.execute(
            sa.select(object).where(object.c.container == box["id"],
                                    object.c.content_type == content_type)
            .order_by(object.c.name).limit(limit)).mappings().all()
        if rows:
            return [(dict(box), dict(row)) for row in rows]
    return []


def empty_containers(connection, account_name, before, limit):
    """Rows of containers that are older than the timestamp ``before``."""
    return [dict(row) for row in connection.execute(sa.select(container).where(
        container.c.account == account_name, container.c.deleted == 0,
        container.c.objects == 0, container.c.put_timestamp < before).limit(limit)).mappings()]


def old_tombstones(connection, before, limit):
    rows = connection.execute(
        sa.select(tombstone, container.c.account.label("account_name"),
                  container.c.name.label("container_name"))
        .join(container, container.c.id == tombstone.c.container)
        .where(tombstone.c.timestamp < before).order_by(tombstone.c.timestamp).limit(limit))
    return [(row["account_name"], row["container_name"], dict(row)) for row in rows.mappings()]


def deleted_accounts(connection, limit):
    rows = connection.execute(sa.select(account).where(
        account.c.delete_timestamp > account.c.put_timestamp).limit(limit))
    return [dict(row) for row in rows.mappings()]


def _one(connection, query):
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
