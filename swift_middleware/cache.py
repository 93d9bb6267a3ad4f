"""A cache for Swift's middlewares where there is no memcached: one host, few processes.

It stands in the pipeline where Swift's ``cache`` filter would, and keeps what it is told in an
SQLite file that all workers share.  Nothing is lost with it that cannot be had again, so it is
never flushed to the disk.
"""

import json
import os
import sqlite3
import threading
import time

from swift.common.memcached import MemcacheConnectionError

_BUSY_TIMEOUT = 5.0
_PURGE_INTERVAL = 60


class SharedCache:
    """Has the methods of :class:`swift.common.memcached.MemcacheRing` that middlewares call.

    ``path``: of the file.
    """

    def __init__(self, path):
        self._path = path
        self._local = threading.local()
        self._purge_at = 0

    def _run(self, statement, *parameters):
        try:
            return self._connection().execute(statement, parameters)
        except sqlite3.Error as error:
            raise MemcacheConnectionError(str(error)) from None

    def _connection(self):
        # Anew in every process, and for every thread of one.
        key = os.getpid()
        if getattr(self._local, "key", None) != key:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, "
                               "value TEXT, until REAL) WITHOUT ROWID")
            self._local.connection, self._local.key = connection, key
        return self._local.connection

    def set(self, key, value, serialize=True, time=0, min_compress_len=0,
            raise_on_error=False):
        try:
            self._run("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", key, json.dumps(value),
                      _until(time))
            self._purge()
        except MemcacheConnectionError:
            if raise_on_error:
                raise

    def get(self, key, raise_on_error=False):
        try:
            row = self._run("SELECT value FROM cache WHERE key = ? AND until > ?", key,
                            _now()).fetchone()
        except MemcacheConnectionError:
            if raise_on_error:
                raise
            return None
        return None if row is None else json.loads(row[0])

    def incr(self, key, delta=1, time=0):
        """Raises MemcacheConnectionError."""
        row = self._run(
            "INSERT INTO cache VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "value = max(0, CASE WHEN until > ? THEN CAST(value AS INTEGER) ELSE 0 END + ?), "
            "until = excluded.until RETURNING value",
            key, str(max(0, int(delta))), _until(time), _now(), int(delta)).fetchone()
        return int(row[0])

    def decr(self, key, delta=1, time=0):
        return self.incr(key, -int(delta), time)

    def delete(self, key, server_key=None):
        try:
            self._run("DELETE FROM cache WHERE key = ?", key)
        except MemcacheConnectionError:
            pass

    def set_multi(self, mapping, server_key, serialize=True, time=0, min_compress_len=0):
        for key, value in mapping.items():
            self.set("%s/%s" % (server_key, key), value, time=time)

    def get_multi(self, keys, server_key):
        return [self.get("%s/%s" % (server_key, key)) for key in keys]

    def _purge(self):
        if _now() > self._purge_at:
            self._purge_at = _now() + _PURGE_INTERVAL
            self._run("DELETE FROM cache WHERE until < ?", _now())


def _now():
    return time.time()


def _until(seconds):
    if not seconds:
        return float("inf")
    # As memcached has it: a long time is a date.
    return seconds if seconds > 30 * 86400 else _now() + seconds


def filter_factory(global_conf, **local_conf):
    """For paste: ``use = egg:sheepstack#shared_cache``, with ``path``."""
    cache = SharedCache(local_conf.get("path", "/var/lib/sheep-swift/cache.db"))

    def make(app):
        def filtered(environ, start_response):
            environ["swift.cache"] = cache
            return app(environ, start_response)
        return filtered
    return make
