"""Who makes a target that a volume is attached by: tgt on this host, or on several others.

``create(target)`` gives the portals where it then is, and may be called again; ``delete`` and
``reopen`` take names.  Methods raise IscsiError and SheepError.
"""

import os
import shlex
import time

from cinder import coordination
from cinder import exception
from cinder import utils
from oslo_log import log as logging

from sheepstack.export.iscsi import Plan, Targets, Tgtd, Wanted

LOG = logging.getLogger(__name__)

_LOOK = 0.1


def made_by(options, cluster, auth_key):
    """As the options of the backend say."""
    if options.sheepdog_iscsi_exporters:
        return Everywhere(cluster, options.sheepdog_iscsi_exporters,
                          options.sheepdog_iscsi_exporter_timeout)
    return Here(options, auth_key)


def root_helper():
    """What a service that is not root puts in front of tgtadm.

    rootwrap has to be told: see ``etc/cinder/rootwrap.d/sheepstack.filters``.
    """
    return shlex.split(utils.get_root_helper()) if os.geteuid() else ()


class Here:
    """One tgt, on this host."""

    def __init__(self, options, auth_key):
        addresses = [options.target_ip_address, *(options.target_secondary_ip_addresses or ())]
        self._portals = ["%s:%d" % ("[%s]" % address if ":" in address else address,
                                    options.target_port) for address in addresses]
        self._targets = Targets(
            options.sheepdog_iscsi_gateway, options.sheepdog_iscsi_directory,
            tgtd=Tgtd(options.sheepdog_iscsi_control_port, root_helper=root_helper()),
            auth_key=auth_key, timeout=options.sheepdog_timeout)
        self.get = self._targets.get
        self.list = self._targets.list

    def create(self, target):
        self._targets.create(target.name, target.vdi, target.snapshot, chap=target.chap,
                             initiators=target.initiators)
        return self._portals

    def delete(self, names):
        for name in names:
            self._targets.delete(name)

    def reopen(self, names):
        for name in names:
            self._targets.reopen(name)


class Everywhere:
    """tgt on several hosts, on each of which ``sheep-iscsi serve`` carries out the plan.

    ``exporters``: their names there.  ``timeout``: seconds to wait for those that do not answer
    any more; they are not waited for again until they have said something.
    """

    def __init__(self, cluster, exporters, timeout):
        self._cluster = cluster
        self._exporters = list(exporters)
        self._timeout = timeout
        self._silent = {}

    def list(self):
        return [wanted.target for wanted in self._read().values()]

    def get(self, name):
        wanted = self._read().get(name)
        return wanted and wanted.target

    def _read(self):
        plan = Plan(self._cluster)
        try:
            return plan.read()[1]
        finally:
            plan.close()

    def _change(self, edit):
        """Change the plan and wait until it is carried out: what each exporter says then that
        has done so."""
        plan = Plan(self._cluster)
        try:
            with coordination.COORDINATOR.get_lock("sheepdog-iscsi-exports"):
                serial = plan.change(edit)
            return self._wait(plan, serial)
        finally:
            plan.close()

    def _wait(self, plan, serial):
        done, deadline = {}, time.monotonic() + self._timeout
        while True:
            late = {}
            for name in self._exporters:
                if name in done:
                    continue
                status = plan.status(name)
                if status is not None and status.serial >= serial:
                    done[name] = status
                elif name not in self._silent or self._silent[name] != status:
                    late[name] = status
            if not late:
                break
            if time.monotonic() > deadline:
                LOG.warning("no answer from the exporting hosts %s", ", ".join(late))
                self._silent.update(late)
                break
            time.sleep(_LOOK)
        for name in done:
            self._silent.pop(name, None)
        return [done[name] for name in self._exporters if name in done]

    def create(self, target):
        name = target.name

        def add(targets):
            old = targets.get(name)
            targets[name] = Wanted(target, old.generation if old else 0)

        statuses = self._change(add)
        portals = [portal for status in statuses if name not in status.failed
                   for portal in status.portals]
        if not portals:
            reasons = {status.failed[name] for status in statuses if name in status.failed}
            self.delete([name])
            raise exception.VolumeBackendAPIException(
                data="no host exports target %s: %s" % (
                    name, "; ".join(reasons) or "none of %s answers"
                    % ", ".join(self._exporters)))
        return portals

    def delete(self, names):
        if not self._read().keys().isdisjoint(names):
            self._change(lambda targets: [targets.pop(name, None) for name in names])

    def reopen(self, names):
        def grow(targets):
            for name in names:
                if name in targets:
                    targets[name] = Wanted(targets[name].target, targets[name].generation + 1)

        if names:
            self._change(grow)
