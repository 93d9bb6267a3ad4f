"""What a cinder-volume that was killed left behind, and nobody will ask for again."""

import contextlib
import logging
import time

from cinder_driver import names
from sheepstack.client import NoSuchTag, NoSuchVdi

LOG = logging.getLogger(__name__)


def remove(cluster, age) -> int:
    """Delete temporary VDIs and snapshots older than ``age`` seconds, and snapshots that this
    driver made for itself of VDIs that are gone; how many.  Raises SheepError."""
    headers = list(cluster.list_vdis())
    working = {header.name for header in headers if not header.is_snapshot}
    limit = int(time.time() - age) << 32
    count = 0
    for header in headers:
        when = header.snap_ctime or header.create_time
        name = header.tag if header.is_snapshot else header.name
        old = name.startswith(names.TEMPORARY) and when < limit
        orphan = header.is_snapshot and names.is_ours(name) and header.name not in working and \
            when < limit
        if old or orphan:
            LOG.warning("deleting what is left over: %s %s", header.name, header.tag)
            with contextlib.suppress(NoSuchVdi, NoSuchTag):
                cluster.delete_vdi(header.name, header.snap_id if header.is_snapshot else None)
                count += 1
    return count
