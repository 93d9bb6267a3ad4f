"""The tables.

Names are kept as the bytes of their UTF-8 form, which every database sorts alike and in which
NUL is a character like any other.  Timestamps are strings in Swift's internal form, which
sort in time's order; ages that only matter here are seconds since the epoch.

An object's row says where its bytes are and where its record is (see
:mod:`swift_middleware.storage.record`): ``data_volume`` None: there are none; ``extents``
None: behind one another at ``data_offset``; else in whole slots, ``"first+count,..."``.
"""

from sqlalchemy import (
    BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, SmallInteger, String, Table,
    Text, UniqueConstraint)
from sqlalchemy.dialects import mysql

#: Bytes of names, as far as the indexes of all databases take them.
MAX_OBJECT_NAME = 2048
MAX_NAME = 1024

_TIMESTAMP = 40

metadata = MetaData()


def _name(length):
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def _big():
    return BigInteger().with_variant(Integer, "sqlite")


def _long():
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql", "mariadb")


account = Table(
    "account", metadata,
    Column("name", _name(MAX_NAME), primary_key=True),
    Column("created_at", String(_TIMESTAMP), nullable=False),
    Column("put_timestamp", String(_TIMESTAMP), nullable=False),
    Column("delete_timestamp", String(_TIMESTAMP), nullable=False),
    Column("headers", _long(), nullable=False),
    Column("log_volume", Integer, nullable=False),
    Column("log_slot", Integer, nullable=False),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

container = Table(
    "container", metadata,
    Column("id", _big(), primary_key=True),
    Column("account", _name(MAX_NAME), nullable=False),
    Column("name", _name(MAX_NAME), nullable=False),
    Column("policy", Integer, nullable=False),
    Column("created_at", String(_TIMESTAMP), nullable=False),
    Column("put_timestamp", String(_TIMESTAMP), nullable=False),
    Column("delete_timestamp", String(_TIMESTAMP), nullable=False),
    Column("status_changed_at", String(_TIMESTAMP), nullable=False),
    Column("deleted", SmallInteger, nullable=False),
    Column("objects", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("headers", _long(), nullable=False),
    Column("log_volume", Integer, nullable=False),
    Column("log_slot", Integer, nullable=False),
    UniqueConstraint("account", "name", name="container_name"),
    mysql_engine="InnoDB")

object = Table(
    "object", metadata,
    Column("container", _big(), primary_key=True, autoincrement=False),
    Column("name", _name(MAX_OBJECT_NAME), primary_key=True),
    Column("timestamp", String(_TIMESTAMP), nullable=False),
    Column("type_timestamp", String(_TIMESTAMP), nullable=False),
    Column("meta_timestamp", String(_TIMESTAMP), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("content_type", Text, nullable=False),
    Column("listed_size", BigInteger, nullable=False),
    Column("listed_etag", Text, nullable=False),
    Column("listed_type", Text, nullable=False),
    Column("delete_at", BigInteger),
    Column("headers", _long(), nullable=False),
    Column("data_volume", Integer),
    Column("data_offset", BigInteger),
    Column("extents", _long()),
    Column("log_volume", Integer, nullable=False),
    Column("log_slot", Integer, nullable=False),
    Index("object_delete_at", "delete_at"),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

#: Names that were deleted, so that an older PUT that comes late does not bring them back.
tombstone = Table(
    "tombstone", metadata,
    Column("container", _big(), primary_key=True, autoincrement=False),
    Column("name", _name(MAX_OBJECT_NAME), primary_key=True),
    Column("timestamp", String(_TIMESTAMP), nullable=False),
    Column("log_volume", Integer, nullable=False),
    Column("log_slot", Integer, nullable=False),
    Index("tombstone_timestamp", "timestamp"),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

#: A VDI.  ``kind``: "log" (records, and the bytes of small objects) or "bulk" (the others').
#: ``copies``: its copy policy, "" for the cluster's default.  ``owner``: the process that
#: writes to it, "" for none; it counts as dead after ``lease``.
volume = Table(
    "volume", metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("copies", String(8), nullable=False),
    Column("owner", String(40), nullable=False),
    Column("lease", Float(53), nullable=False),
    Column("next_slot", Integer, nullable=False),
    mysql_engine="InnoDB")

#: A slot of a log volume that has records.  ``sealed``: 0 while more are written to it, 1 then; 2
#: where its writer was taken for dead before.  ``live``: rows that need it; ``live_bytes``: what
#: they need of it; ``dead``: records that nobody needs any more.
pack = Table(
    "pack", metadata,
    Column("volume", Integer, primary_key=True, autoincrement=False),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("sealed", SmallInteger, nullable=False),
    Column("live", Integer, nullable=False),
    Column("live_bytes", BigInteger, nullable=False),
    Column("dead", Integer, nullable=False),
    Column("changed", Float(53), nullable=False),
    Index("pack_live", "sealed", "live"),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

#: Slots of a bulk volume that no object has: because one is being written to them (``freed``
#: None), or since its end (``freed``: when that was).
extent = Table(
    "extent", metadata,
    Column("volume", Integer, primary_key=True, autoincrement=False),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("freed", Float(53)),
    Index("extent_freed", "freed"),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

#: Slots whose writer was taken for dead.  He may live after all and write to them once more when
#: they were given back already; so that is done again, at ``due``, until long after ``since``.
stray = Table(
    "stray", metadata,
    Column("volume", Integer, primary_key=True, autoincrement=False),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("since", Float(53), nullable=False),
    Column("due", Float(53), nullable=False),
    Index("stray_due", "due"),
    sqlite_with_rowid=False, mysql_engine="InnoDB")

#: Who does what only one process should do at a time.
duty = Table(
    "duty", metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(40), nullable=False),
    Column("until", Float(53), nullable=False),
    mysql_engine="InnoDB")
