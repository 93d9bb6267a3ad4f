"""Many names at once, straight into the databases of both sides: what it costs to put them
there one by one is measured elsewhere, and would take hours."""

import itertools
import sqlite3

import sqlalchemy as sa
from swift.common.utils import Timestamp
from swift.container.backend import ContainerBroker

from swift_middleware.database import queries
from swift_middleware.database.engine import Database
from swift_middleware.database.schema import container, object

_AT_ONCE = 10000
_EMPTY = "d41d8cd98f00b204e9800998ecf8427e"
_TYPE = "application/octet-stream"


def _groups(names):
    return iter(lambda: list(itertools.islice(names, _AT_ONCE)), [])


def fill_ours(url, account_name, container_name, names):
    """``url``: of the database, as SQLAlchemy has it."""
    database = Database(url)
    now = Timestamp.now().internal
    box = database.read(
        queries.find_container, account_name.encode(), container_name.encode())

    def add(connection, group):
        connection.execute(object.insert(), [{
            "container": box["id"], "name": name.encode(), "timestamp": now,
            "type_timestamp": now, "meta_timestamp": now, "size": 0, "etag": _EMPTY,
            "content_type": _TYPE, "listed_size": 0, "listed_etag": _EMPTY,
            "listed_type": _TYPE, "delete_at": None, "headers": "{}", "data_volume": None,
            "data_offset": None, "extents": None, "log_volume": box["log_volume"],
            "log_slot": box["log_slot"]} for name in group])
        connection.execute(sa.update(container).where(container.c.id == box["id"]).values(
            objects=container.c.objects + len(group)))
    for group in _groups(iter(names)):
        database.write(add, group)
    database.close()


def fill_swifts(directory, account_name, container_name, names):
    """``directory``: below which the devices are."""
    now = Timestamp.now().internal
    brokers = [broker for broker in map(_open, directory.glob("node*/d/containers/*/*/*/*.db"))
               if broker is not None
               and (broker.account, broker.container) == (account_name, container_name)]
    for group in _groups(iter(names)):
        for broker in brokers:
            broker.merge_items([{
                "name": name, "created_at": now, "size": 0, "content_type": _TYPE,
                "etag": _EMPTY, "deleted": 0, "storage_policy_index": 0, "ctype_timestamp": None,
                "meta_timestamp": None} for name in group])


def _open(path):
    broker = ContainerBroker(str(path))
    try:
        broker.get_info()
    except (sqlite3.Error, KeyError):
        # It is being made just now.
        return None
    return broker
