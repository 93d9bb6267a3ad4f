"""Uploads that are under way, and those of a glance-api that was killed.

A VDI that is being filled has an attribute that its process changes every :data:`BEAT` seconds.
One whose attribute does not change is nobody's.  Clocks of different hosts are never compared.
"""

import contextlib
import logging
import threading
import time
import uuid

from sheepstack.client import NoSuchAttribute, NoSuchTag, NoSuchVdi, SheepError

LOG = logging.getLogger(__name__)

_KEY = "glance-upload"
BEAT = 2.0
#: After so many seconds without a beat somebody who wants to upload the same image may do so.
PATIENCE = 10.0
_LOOK = 0.5


class Heart:
    """Beats as long as its block lasts; ``stop`` in it ends that, and the VDI may stay."""

    def __init__(self, cluster, name):
        self._cluster = cluster
        self._name = name
        self._who = uuid.uuid4().hex
        self._count = 0
        self._stopped = threading.Event()
        self._thread = None

    def __enter__(self):
        self._beat()
        self._thread = threading.Thread(target=self._run, daemon=True, name="image-heart")
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stopped.set()
        self._thread.join()

    def _beat(self):
        self._count += 1
        self._cluster.setattr(self._name, _KEY, ("%s %d" % (self._who, self._count)).encode())

    def _run(self):
        while not self._stopped.wait(BEAT):
            try:
                self._beat()
            except SheepError as error:
                LOG.debug("the upload of %s cannot tell that it goes on: %s", self._name, error)

    def stop(self):
        """The VDI is complete."""
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(NoSuchAttribute):
            self._cluster.delattr(self._name, _KEY)


def _pulse(cluster, name):
    """(when the VDI was made, its attribute); None where there is no such VDI.

    The attribute is None where there is none.  Raises SheepError.
    """
    try:
        made = cluster.header(name).create_time
        try:
            return made, cluster.getattr(name, _KEY)
        except NoSuchAttribute:
            return made, None
    except (NoSuchVdi, NoSuchTag):
        return None


def is_abandoned(cluster, name) -> bool:
    """Whether nobody is filling a VDI; to find out that it is so takes :data:`PATIENCE` seconds.

    True as well where it is gone.  Raises SheepError.
    """
    before = _pulse(cluster, name)
    deadline = time.monotonic() + PATIENCE
    now = before
    while now is not None and time.monotonic() < deadline:
        # The beat of another process: nothing here could tell that it has come.
        time.sleep(_LOOK)
        now = _pulse(cluster, name)
        if now is not None and now != before:
            return False
    return True


class Sweeper:
    """Removes what killed processes left.

    ``sweep`` returns at once, and has a thread look, unless it was called ``interval`` seconds
    ago or less.  What is to go has been seen without a beat for ``age`` seconds.
    """

    def __init__(self, cluster, prefix, age):
        self._cluster = cluster
        self._prefix = prefix
        self._age = age
        self._interval = age / 2
        self._lock = threading.Lock()
        self._last = None
        self._seen = {}

    def sweep(self):
        with self._lock:
            now = time.monotonic()
            if self._last is not None and now - self._last < self._interval:
                return
            self._last = now
        threading.Thread(target=self._sweep, daemon=True, name="image-sweeper").start()

    def _sweep(self):
        try:
            self.look()
        except SheepError as error:
            LOG.warning("cannot look for unfinished uploads: %s", error)

    def look(self):
        """Look now, and remove what is due; raises SheepError."""
        seen = {}
        for header in list(self._cluster.list_vdis()):
            if header.is_snapshot or not header.name.startswith(self._prefix):
                continue
            pulse = _pulse(self._cluster, header.name)
            if pulse is None or pulse[1] is None:
                # Without the attribute it is not ours.
                continue
            now = time.monotonic()
            old, since = self._seen.get(header.name, (None, now))
            if old != pulse:
                since = now
            if now - since < self._age:
                seen[header.name] = pulse, since
                continue
            LOG.warning("deleting VDI %s, whose upload was never finished", header.name)
            with contextlib.suppress(NoSuchVdi):
                self._cluster.delete_vdi(header.name)
        self._seen = seen
