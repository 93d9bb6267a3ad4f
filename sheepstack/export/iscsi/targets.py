"""Making VDIs targets: the library behind ``sheep-iscsi`` and the Cinder driver."""

import contextlib
import logging
import time
import uuid

from sheepstack.client import Cluster, NoSuchVdi, VdiExists
from sheepstack.export.iscsi.errors import (
    IscsiError, TargetBusy, TargetConflict, TgtdFailed)
from sheepstack.export.iscsi.records import Records
from sheepstack.export.iscsi.target import LUN, Target, backing_store, checked, identity
from sheepstack.export.iscsi.tgtd import Tgtd

log = logging.getLogger(__name__)

DIRECTORY = "/var/lib/sheepstack/iscsi"
_TARGET_EXISTS = "this target already exists"
_PAUSE = 0.1


class Targets:
    """The targets of one tgtd.

    ``gateway``: of the sheep through which tgt is to reach the cluster, best the Unix socket
    of the one on this host.  ``directory``: where targets are written down.  ``tgtd``: a
    :class:`Tgtd`.  ``auth_key``: the cluster's secret as bytes, for our own questions; tgt
    cannot use it.  ``timeout``: seconds to wait for the sheep, and for other processes.

    Every method may be called by many threads and processes at a time, and again when it did
    not come to its end.  Methods raise :class:`IscsiError`, and SheepError where the cluster
    fails.
    """

    def __init__(self, gateway, directory=DIRECTORY, *, tgtd=None, auth_key=None, timeout=30.0):
        self._gateway = gateway
        self._records = Records(directory)
        self._tgtd = tgtd or Tgtd()
        self._auth_key = auth_key
        self._timeout = timeout

    # -- what there is

    def get(self, name) -> Target | None:
        return self._records.get(name)

    def list(self) -> list:
        """All targets that were made here, whether tgtd has them at the moment or not."""
        return self._records.all()

    def live(self) -> dict:
        """What tgtd has, by name, as :class:`LiveTarget`; also targets of others."""
        return {each.name: each for each in self._tgtd.targets()}

    # -- making and ending them

    def create(self, name, vdi, snapshot=None, *, chap=None, initiators=(), addresses=(),
               read_only=False, gateway=None) -> Target:
        """Export a VDI, or a snapshot (read-only) by its tag or id.

        ``initiators`` are names and ``addresses`` IP addresses, networks or
        :data:`~sheepstack.export.iscsi.ANYBODY`; who is in either list may log in, nobody
        where both are empty.  ``chap``: a :class:`Chap`; its user belongs to no other target
        with another password.

        A target that is there already gets the lists given.  Raises BadTarget, NoSuchVdi,
        NoSuchTag, TargetConflict where the target is there with another VDI or secret.
        """
        wanted = checked(Target(name, vdi, snapshot, chap, tuple(initiators), tuple(addresses),
                                read_only, gateway))
        with self._locked():
            old = self._records.get(name)
            if old is not None:
                wanted = wanted._replace(clone=old.clone)
                self._check_same(old, wanted)
            elif snapshot is not None:
                wanted = wanted._replace(clone="iscsi-export-" + uuid.uuid4().hex)
            self._check_user(wanted)
            self._store(wanted)
            with self._cluster(wanted) as cluster:
                cluster.lookup(vdi, snapshot)
                # It is written down first: what is left by a crash is known and goes away.
                self._records.put(wanted)
                try:
                    self._establish(wanted, cluster)
                except BaseException:
                    if old is None:
                        self._undo(wanted, cluster)
                    raise
        return wanted

    def delete(self, name) -> None:
        """End an export, and the sessions of who uses it; no error where there is none.

        Raises TargetBusy where commands do not come to their end, and ClusterUnreachable
        where the target's sheep does not answer: tgtd would wait for it, and serve nobody.
        """
        with self._locked():
            target = self._records.get(name)
            if target is None:
                return
            with self._cluster(target) as cluster:
                cluster.info()
                self._take_down(target)
                if target.clone is not None:
                    with contextlib.suppress(NoSuchVdi):
                        cluster.delete_vdi(target.clone)
            self._records.remove(name)

    def reopen(self, name) -> None:
        """Let tgtd see that the VDI was made bigger.  For a moment it is not ready."""
        with self._locked():
            target = self._records.get(name)
            if target is None:
                raise IscsiError("there is no target '%s'" % name)
            with self._cluster(target) as cluster:
                self._establish(target, cluster)
                live = self._tgtd.find(name)
                self._tgtd.set_unit(live.number, LUN, online=0)
                self._tgtd.set_unit(live.number, LUN, path=self._store(target))

    def restore(self) -> dict:
        """Give a tgtd that was started anew its targets back, as far as it lacks any.

        The rest is done where one cannot be: an error for the name of each that failed.
        """
        failed = {}
        with self._locked():
            for name in self._records.names():
                try:
                    target = self._records.get(name)
                    with self._cluster(target) as cluster:
                        self._establish(target, cluster)
                except Exception as error:
                    log.error("target '%s' is not restored: %s", name, error)
                    failed[name] = error
        return failed

    # -- steps; the lock is held

    def _locked(self):
        return self._records.locked(self._timeout)

    def _cluster(self, target):
        return Cluster(target.gateway or self._gateway, self._auth_key, self._timeout)

    def _store(self, target):
        return backing_store(target.gateway or self._gateway, target.backing_vdi)

    @staticmethod
    def _check_same(old, wanted):
        for field in ("vdi", "snapshot", "chap", "read_only", "gateway"):
            if getattr(old, field) != getattr(wanted, field):
                raise TargetConflict("target '%s' is there already, with another %s: delete it "
                                     "first" % (old.name, field))

    def _check_user(self, wanted):
        for other in self._records.all():
            if wanted.chap is not None and other.chap is not None and \
                    wanted.name != other.name and wanted.chap.user == other.chap.user and \
                    wanted.chap != other.chap:
                raise TargetConflict("user '%s' has another password at target '%s'"
                                     % (wanted.chap.user, other.name))

    def _establish(self, target, cluster):
        """Have tgtd know the target, step by step: who is let in is said last."""
        store = self._store(target)
        live = self._tgtd.find(target.name)
        if live is None:
            live = self._add_target(target.name)
        if live.units.get(LUN, ("sheepdog", store)) != ("sheepdog", store):
            raise TargetConflict("tgtd has a target '%s' that exports %s '%s'"
                                 % (target.name, *live.units[LUN]))
        if target.chap is not None and target.chap.user not in live.accounts:
            self._bind_account(live, target)
        if LUN not in live.units:
            self._add_unit(live, target, cluster, store)
        allowed = {*target.initiators, *target.addresses}
        for who in allowed.difference(live.acl):
            self._tgtd.allow(live.number, who)
        for who in set(live.acl).difference(allowed):
            self._tgtd.forbid(live.number, who)

    def _add_target(self, name):
        while True:
            number = max((each.number for each in self._tgtd.targets()), default=0) + 1
            try:
                self._tgtd.add_target(number, name)
            except TgtdFailed as error:
                # Somebody else, who does not know our lock, was faster.
                if error.reason != _TARGET_EXISTS or self._tgtd.find(name) is not None:
                    raise
                continue
            return self._tgtd.find(name)

    def _bind_account(self, live, target):
        user, password = target.chap
        known = user in self._tgtd.accounts()
        if known and not self._is_used_elsewhere(target):
            if any(user in each.accounts for each in self._tgtd.targets()):
                raise TargetConflict("tgtd has an account '%s' for a target that was not made "
                                     "here" % user)
            # Left by a creation that did not come to its end; its password is not known.
            self._tgtd.remove_account(user)
            known = False
        if not known:
            self._tgtd.add_account(user, password)
        self._tgtd.bind_account(live.number, user)

    def _is_used_elsewhere(self, target):
        """Whether another target of ours has the account of this one."""
        return any(other.name != target.name and other.chap == target.chap
                   for other in self._records.all())

    def _add_unit(self, live, target, cluster, store):
        if target.clone is not None:
            with contextlib.suppress(VdiExists):
                cluster.clone(target.vdi, target.snapshot, target.clone)
        # tgtd would wait for a sheep that does not answer, and serve nobody meanwhile.
        cluster.lookup(target.backing_vdi)
        self._tgtd.add_unit(live.number, LUN, store)
        digits = identity(cluster.info().ctime, target)
        self._tgtd.set_unit(
            live.number, LUN, scsi_id=digits, scsi_sn=digits, vendor_id="SHEEP",
            product_id="VDI", readonly=int(target.read_only))

    def _take_down(self, target):
        """Have tgtd forget the target."""
        live = self._tgtd.find(target.name)
        if live is not None:
            for who in live.acl:
                self._tgtd.forbid(live.number, who)
            deadline = time.monotonic() + self._timeout
            while True:
                try:
                    self._tgtd.remove_target(live.number)
                    break
                except TargetBusy:
                    # It cannot be told when the commands under way have come to their end.
                    if time.monotonic() > deadline:
                        for who in live.acl:
                            self._tgtd.allow(live.number, who)
                        raise
                    time.sleep(_PAUSE)
        if target.chap is not None and not self._is_used_elsewhere(target) and \
                target.chap.user in self._tgtd.accounts():
            self._tgtd.remove_account(target.chap.user)

    def _undo(self, target, cluster):
        try:
            self._take_down(target)
            if target.clone is not None:
                with contextlib.suppress(NoSuchVdi):
                    cluster.delete_vdi(target.clone)
            self._records.remove(target.name)
        except Exception as error:
            log.warning("target '%s' is left half made; delete it: %s", target.name, error)
