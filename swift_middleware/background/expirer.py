"""Deletes the objects whose time is over.  (Nobody is shown them from that time on.)"""

import time

from swift.common.utils import Timestamp

from swift_middleware.database import ledger, queries

_AT_ONCE = 1000


def expire(store) -> int:
    """Delete what has expired, up to a limit; how many objects."""
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
