"""The connection to the database."""

import os
import sqlite3
import time

import alembic.command
import alembic.config
import sqlalchemy
from oslo_db import exception
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import event

from swift_middleware import concurrency

#: The database does not answer, or not now.
Unavailable = exception.DBError

_POOL_SIZE = 8
_CONNECT_TIMEOUT = 10
_BUSY_TIMEOUT = 30

#: Milliseconds for which SQLite itself waits for the lock to write.  It would sleep ever longer,
#: many times as long as others hold it.
_SHORT_WAIT = 2

#: Copying what was written into the database's file waits for the disk twice.
_CHECKPOINT_PAGES = 8192

#: Rows from SQLite after which other requests have their turn, and how many of them a statement
#: is worth.
_TURN = 1000
_STATEMENT = 10

_MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")


def parse_url(text: str) -> sqlalchemy.URL:
    """Raises ValueError unless it is the URL of a database that we have the driver of."""
    try:
        url = sqlalchemy.make_url(text)
        url.get_dialect().import_dbapi()
        return url
    except sqlalchemy.exc.NoSuchModuleError:
        raise ValueError("option 'connection': SQLAlchemy knows no databases of the kind '%s'"
                         % url.drivername) from None
    except sqlalchemy.exc.ArgumentError:
        # It may have a password in it.
        raise ValueError("option 'connection' is no URL of a database: write one like "
                         "postgresql+psycopg2://user:password@host/name") from None
    except ImportError as error:
        raise ValueError("option 'connection': the driver for '%s' is not installed: %s"
                         % (url.drivername, error)) from None


class Database:
    """``url``: see :func:`parse_url`.  Nothing is connected before the first use."""

    def __init__(self, url: str):
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = None
        self._readers = []
        self._writers = []

    @property
    def engine(self):
        if self._engine is None:
            self._engine = self._make()
        return self._engine

    def _make(self):
        options = {}
        if self.is_sqlite:
            os.makedirs(os.path.dirname(self.url.database), exist_ok=True)
        else:
            options = {"max_pool_size": _POOL_SIZE, "connection_recycle_time": 3600}
        facade = enginefacade.transaction_context()
        facade.configure(
            connection=self.url.render_as_string(hide_password=False), max_retries=0,
            sqlite_synchronous=True, **options)
        engine = facade.writer.get_engine()
        if self.is_sqlite:
            event.listen(engine, "connect", _on_sqlite_connect)
        return engine

    def migrate(self):
        """Make the tables, or bring them up to date."""
        config = alembic.config.Config()
        config.set_main_option("script_location", _MIGRATIONS)

        def upgrade(connection):
            config.attributes["connection"] = connection
            self._lock_migrations(connection)
            try:
                alembic.command.upgrade(config, "head")
            finally:
                if connection.dialect.name in ("mysql", "mariadb"):
                    # It is the connection's, not the transaction's.
                    connection.exec_driver_sql("SELECT RELEASE_LOCK('sheep-swift')")

        self._use(self._writers, upgrade, ())

    def _lock_migrations(self, connection):
        """Several processes start at once; for SQLite its transaction is lock enough."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7306373)")
        elif connection.dialect.name in ("mysql", "mariadb"):
            connection.exec_driver_sql("SELECT GET_LOCK('sheep-swift', 60)")

    def read(self, function, *args):
        """``function(connection, *args)``, which changes nothing."""
        if self.is_sqlite:
            # A page cache is not worth a thread.
            return self._use(self._readers, function, args)
        return self.search(function, *args)

    def search(self, function, *args):
        """As :meth:`read`, where it may have to look at many rows for few: requests are served
        meanwhile."""
        return concurrency.offload(self._use, self._readers, function, args)

    def look_up(self, lookup, parameters: dict):
        """The first row, a sequence, that ``lookup``, a :class:`Lookup`, finds; or None."""
        if not self.is_sqlite:
            return self.read(lookup.first, parameters)
        connection = self._connection(self._readers)
        try:
            row = lookup.first_of_sqlite(connection, parameters)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise Unavailable(error) from None
            raise
        self._readers.append(connection)
        return row

    def write(self, function, *args):
        """``function(connection, *args)`` in a transaction."""
        return concurrency.offload(self._use, self._writers, function, args)

    def _connection(self, idle):
        try:
            return idle.pop()
        except IndexError:
            pass
        try:
            connection = self.engine.connect()
        except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            # oslo.db translates what statements raise, but not this.
            raise exception.DBConnectionError(error) from None
        if self.is_sqlite and idle is self._writers:
            connection.connection.dbapi_connection.execute(
                "PRAGMA busy_timeout = %d" % _SHORT_WAIT)
        return connection

    def _use(self, idle, function, args):
        connection = self._connection(idle)
        try:
            if self.is_sqlite:
                # Keeps oslo.db from beginning a transaction, of a kind that cannot wait.
                connection.info["in_transaction"] = True
            with connection.begin():
                if self.is_sqlite and idle is self._writers:
                    _begin_to_write(connection.connection.dbapi_connection)
                result = function(connection, *args)
        except BaseException:
            connection.close()
            raise
        if self.is_sqlite:
            # Opening the file takes longer than most of what is done with it.
            idle.append(connection)
        else:
            connection.close()
        return result

    def close(self):
        for idle in (self._readers, self._writers):
            while idle:
                idle.pop().close()
        if self._engine is not None:
            self._engine.dispose()


class Lookup:
    """A query with named parameters that is made once.

    Where rows come from SQLite, SQLAlchemy would take ten times longer than that.
    """

    def __init__(self, query):
        self._query = query
        self._compiled = None

    def first(self, connection, parameters):
        return connection.execute(self._query, parameters).first()

    def all(self, connection, parameters) -> list:
        """All rows, sequences.  Raises :data:`Unavailable`."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._query, parameters).all()
        try:
            cursor = self._ask_sqlite(connection, parameters)
            found = cursor.fetchmany(_TURN)
            _take_turns(connection, len(found) + _STATEMENT)
            while len(found) % _TURN == 0 and (more := cursor.fetchmany(_TURN)):
                found += more
                _take_turns(connection, len(more))
            return found
        except sqlite3.Error as error:
            raise Unavailable(error) from None

    def first_of_sqlite(self, connection, parameters):
        """Outside of a transaction.  Raises sqlite3.Error."""
        return self._ask_sqlite(connection, parameters).fetchone()

    def _ask_sqlite(self, connection, parameters):
        if self._compiled is None:
            compiled = self._query.compile(dialect=connection.dialect)
            self._compiled = compiled.string, compiled.positiontup, compiled.params
        text, names, values = self._compiled
        values = {**values, **parameters}
        return connection.connection.dbapi_connection.execute(
            text, [values[name] for name in names])


def _take_turns(connection, rows):
    """So many rows more were read: it is done in the thread of all requests."""
    taken = connection.info.get("taken", 0) + rows
    if taken >= _TURN:
        concurrency.pause()
        taken = 0
    connection.info["taken"] = taken


def _begin_to_write(connection):
    """Begin a transaction as soon as nobody else is in one."""
    until = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if time.monotonic() > until:
                raise exception.DBConnectionError(error) from None


def _on_sqlite_connect(connection, record):
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = %d" % (1000 * _BUSY_TIMEOUT))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = %d" % _CHECKPOINT_PAGES)
