"""A host that exports what the plan of its cluster says: ``sheep-iscsi serve``."""

import logging
import threading
import time

from sheepstack.client import Cluster, SheepError
from sheepstack.export.iscsi.errors import IscsiError
from sheepstack.export.iscsi.plan import Plan, Status

log = logging.getLogger(__name__)

_POLL = 0.2
#: Seconds between looks at a tgtd that may have been started anew.
_CARE = 5.0
_FIELDS = ("vdi", "snapshot", "chap", "read_only")


class Exporter:
    """``name``: how others call this host; ``portals``: ``host:port`` of its tgtd, as initiators
    reach it.  ``targets``: of that tgtd, which are all ours."""

    def __init__(self, name, portals, targets, gateway, auth_key=None, timeout=30.0):
        self._name = name
        self._portals = list(portals)
        self._targets = targets
        self._cluster = Cluster(gateway, auth_key, timeout=timeout)
        self._plan = Plan(self._cluster)
        self._ended = threading.Event()
        self._generations = {}
        self._applied = None
        self._cared = 0.0

    def stop(self):
        self._ended.set()

    def run(self):
        """Carry out the plan until :meth:`stop`; what goes wrong is logged and tried again."""
        try:
            while not self._ended.is_set():
                try:
                    self.step()
                except (SheepError, IscsiError, OSError) as error:
                    log.error("%s", error)
                    self._applied = None
                self._ended.wait(_POLL)
        finally:
            self._plan.close()
            self._cluster.close()

    def step(self):
        """Have tgtd do what the plan says, where that may not be so."""
        due = time.monotonic() - self._cared >= _CARE
        if self._applied is not None and self._plan.serial() == self._applied and not due:
            return
        serial, wanted = self._plan.read()
        failed = self._carry_out(wanted)
        self._cared = time.monotonic()
        if serial != self._applied or failed:
            self._plan.report(self._name, Status(serial, self._portals, failed))
        self._applied = serial

    def _carry_out(self, wanted):
        """Reasons by name of what could not be done."""
        live, failed = self._targets.live(), {}
        ours = {target.name: target for target in self._targets.list()}
        for name in [*ours, *(wanted.keys() - ours.keys())]:
            try:
                self._one(name, wanted.get(name), ours.get(name), live)
            except (SheepError, IscsiError) as error:
                log.error("target '%s': %s", name, error)
                failed[name] = str(error)
        return failed

    def _one(self, name, wanted, present, live):
        if wanted is None:
            self._targets.delete(name)
            self._generations.pop(name, None)
            return
        target, generation = wanted
        if present is not None and any(
                getattr(present, field) != getattr(target, field) for field in _FIELDS):
            self._targets.delete(name)
            present = None
        if present is None or name not in live or present.initiators != target.initiators or \
                present.addresses != target.addresses:
            self._targets.create(
                name, target.vdi, target.snapshot, chap=target.chap,
                initiators=target.initiators, addresses=target.addresses,
                read_only=target.read_only)
        if present is not None and self._generations.get(name, 0) != generation:
            self._targets.reopen(name)
        self._generations[name] = generation
