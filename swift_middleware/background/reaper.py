"""Empties the accounts that were deleted, and then forgets them."""

import logging

import sqlalchemy as sa
from swift.common.utils import Timestamp

from swift_middleware.database import changes, ledger, queries
from swift_middleware.database.schema import container, object
from swift_middleware.storage import rows

log = logging.getLogger(__name__)

_ACCOUNTS_AT_ONCE = 10
_CONTAINERS_AT_ONCE = 100
_OBJECTS_AT_ONCE = 1000


def reap(store) -> int:
    """Delete some of what deleted accounts have; how many rows."""
    return sum(_reap_account(store, row) for row in store.database.read(
        queries.deleted_accounts, _ACCOUNTS_AT_ONCE))


def _reap_account(store, row):
    name = row["name"]
    containers = store.database.read(_containers, name)
    reaped = 0
    for found in containers:
        reaped += _reap_container(store, name, found)
    if not containers:
        try:
            store.committer.commit(changes.ForgetAccount(row))
            reaped += 1
        except ledger.Refused:
            # It is in use again.
            pass
    return reaped


def _reap_container(store, account, row):
    names = store.database.read(_names, row["id"])
    for name in names:
        try:
            store.delete_object(
                account, row["name"], row["policy"], name, Timestamp.now().internal)
        except ledger.Refused as refusal:
            log.warning("an object of a deleted account stays: %r", refusal)
    if len(names) < _OBJECTS_AT_ONCE:
        gone = rows.deleted_container(row, Timestamp.now().internal)
        try:
            store.put_container(gone, (row["log_volume"], row["log_slot"]))
        except ledger.Refused as refusal:
            log.warning("a container of a deleted account stays: %r", refusal)
    return len(names) + 1


def _containers(connection, account):
    return [dict(row) for row in connection.execute(sa.select(container).where(
        container.c.account == account, container.c.deleted == 0)
        .limit(_CONTAINERS_AT_ONCE)).mappings()]


def _names(connection, ident):
    return connection.execute(sa.select(object.c.name).where(
        object.c.container == ident).limit(_OBJECTS_AT_ONCE)).scalars().all()
