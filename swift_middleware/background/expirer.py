"""Deletes the objects whose time is over.  (Nobody is shown them from that time on.)

And those that somebody has asked to have deleted later: Swift's middleware for static large
objects puts a large object's segments into a queue, as rows of containers of an account of its
own, and leaves the rest to Swift's object expirer.  Here it is left to this module.
"""

import logging
import time

from swift.common.utils import Timestamp
from swift.obj.expirer import ASYNC_DELETE_TYPE, parse_task_obj

from swift_middleware.database import ledger, queries
from swift_middleware.storage import rows

log = logging.getLogger(__name__)

QUEUE = b".expiring_objects"

_AT_ONCE = 1000

#: Seconds after which nothing is put into a container of the queue any more: each is for a day.
_QUEUE_AGE = 2 * 86400


def expire(store) -> int:
    """Delete what has expired, and what is in the queue, up to a limit; how many objects."""
    return _expire(store) + _work_off(store)


def _expire(store):
    deleted = 0
    for account, container, row in store.database.read(
            queries.expired, int(time.time()), _AT_ONCE):
        policy = store.database.read(queries.find_container, account, container)["policy"]
        try:
            store.delete_object(account, container, policy, row["name"],
                                Timestamp.now().internal, row["delete_at"])
            deleted += 1
        except ledger.Refused:
            # Somebody has given it another time, or made it anew.
            continue
    return deleted


def _work_off(store):
    now = Timestamp.now()
    done = 0
    for container, row in store.database.read(
            queries.queued, QUEUE, ASYNC_DELETE_TYPE, _AT_ONCE):
        try:
            due, *names = parse_task_obj(row["name"].decode())
        except ValueError as error:
            log.error("%r in the queue of deletions is no task: %s", row["name"], error)
            continue
        if due <= now:
            _delete(store, *(name.encode() for name in names), Timestamp(due).internal)
            store.delete_object(QUEUE, container["name"], container["policy"], row["name"],
                                Timestamp.now().internal)
            done += 1
    for row in store.database.read(
            queries.empty_containers, QUEUE, _before(_QUEUE_AGE), _AT_ONCE):
        try:
            store.put_container(rows.deleted_container(row, Timestamp.now().internal),
                                (row["log_volume"], row["log_slot"]))
        except ledger.Refused:
            # Something was put into it.
            continue
    return done


def _before(age):
    return Timestamp(time.time() - age).internal


def _delete(store, account, container, name, timestamp):
    """Delete an object that is not newer than ``timestamp``."""
    found = store.database.read(queries.find_container, account, container)
    if found is None:
        return
    try:
        store.delete_object(account, container, found["policy"], name, timestamp)
    except (ledger.NotThere, ledger.Newer):
        # Nothing is left to do.
        pass
