"""Has one process of all do what is to be done all the time."""

import logging
import threading
import time

import sqlalchemy as sa

from swift_middleware import metrics
from swift_middleware.background.expirer import expire
from swift_middleware.background.reaper import reap
from swift_middleware.background.sweeper import sweep
from swift_middleware.database.schema import duty

log = logging.getLogger(__name__)

_ROUNDS = 100


class Runner:
    """Works until ``store``, that of this process, is closed."""

    def __init__(self, store, options):
        self._store = store
        self._options = options

    def start(self):
        for name, interval, work in (
                ("sweeper", self._options.sweep_interval, self._sweep),
                ("expirer", self._options.expirer_interval, self._expire),
                ("reaper", self._options.sweep_interval, lambda: reap(self._store))):
            threading.Thread(target=self._run, args=(name, interval, work), daemon=True,
                             name="swift-" + name).start()
        return self

    def _sweep(self):
        report = sweep(self._store, self._options)
        for what, count in report._asdict().items():
            metrics.swept.labels(what).inc(count)
        return sum(report)

    def _expire(self):
        deleted = expire(self._store)
        metrics.expired.inc(deleted)
        return deleted

    def _run(self, name, interval, work):
        while not self._store.closed.wait(interval):
            try:
                for _ in range(_ROUNDS):
                    if not self._claim(name, interval) or not work():
                        break
            except Exception as error:
                log.warning("the %s has to try again later: %r", name, error)

    def _claim(self, name, interval):
        now = time.time()
        return self._store.database.write(
            claim, name, self._store.volumes.owner, now, now + 3 * interval + 60)


def claim(connection, name, owner, now, until) -> bool:
    """Whether ``owner`` has the duty ``name``; if so, until then."""
    row = connection.execute(
        sa.select(duty).where(duty.c.name == name).with_for_update()).first()
    if row is None:
        connection.execute(duty.insert().values(name=name, owner=owner, until=until))
        return True
    if row.owner != owner and row.until > now:
        return False
    connection.execute(duty.update().where(duty.c.name == name).values(
        owner=owner, until=until))
    return True
