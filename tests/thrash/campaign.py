"""One round: a cluster, its clients and its nemesis, and the verdict."""

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
import time
import traceback
from typing import NamedTuple, Tuple

from sheepstack.redundancy import policy as policies
from tests.functional.harness import wait_until
from tests.thrash import offline
from tests.thrash.checker import check
from tests.thrash.clients import Crowd, look_everywhere
from tests.thrash.clocks import Clocks
from tests.thrash.cluster import Farm, Namespaces, PlainNetwork, ZooKeeper
from tests.thrash.history import History
from tests.thrash.nemesis import HealsNot, Nemesis
from tests.thrash.stopwatch import Stopwatch

log = logging.getLogger(__name__)

#: Seconds until the session of a sheep that is silent expires.
_SESSION_TIMEOUT = 3.0
#: Seconds that a client's request may take.  A gateway that is silent for two fifths of it is
#: given up by the client; its session has expired by then.
_CLIENT_TIMEOUT = 20.0
#: The same at the end, when it is what is read that matters: on a machine with much else to do
#: a session may expire then, too.
_LOOK_TIMEOUT = 90.0
#: Seconds in which everything must have come right once nothing is broken any more.
_HEALING_TIME = 180
#: Reclaiming looks for work by itself so often.
_RECLAIM_TIME = 60


class Plan(NamedTuple):
    """What to do in a round; all that happens in it follows from this, but for the timing."""

    seed: int
    faults: int
    runtime: str = "eventlet"
    driver: str = "local"
    net: str = "plain"
    sheep: int = 5
    owners: int = 3
    sharers: int = 2
    sync: bool = True
    lock: bool = False
    disk: int = 0
    clock: bool = False
    only: Tuple[str, ...] = ()
    policy: str = "3"

    def tolerated(self):
        """How many sheep may be gone at a time, with all that they hold."""
        copies = policies.parse(self.policy)
        return copies.parity if copies.is_erasure else copies.nr_copies - 1

    def __str__(self):
        words = ["seed %d" % self.seed, self.runtime, self.driver]
        words += [self.net] if self.net != "plain" else []
        words += ["nosync"] if not self.sync else []
        words += ["lock"] if self.lock else []
        words += ["disk %d" % self.disk] if self.disk else []
        words += ["clock"] if self.clock else []
        words += [self.policy] if self.policy != "3" else []
        return " ".join(words)


class Verdict(NamedTuple):
    """``faults`` are (seconds since the start, text); ``seconds`` the whole round took,
    ``slowest`` what clients waited for longest, ``times`` where the time went.

    ``unlinked`` objects and writes that took effect ``twice`` are no violations: see
    :mod:`~tests.thrash.offline` and :mod:`~tests.thrash.checker`.
    """

    plan: Plan
    faults: list
    operations: int
    failures: int
    objects: int
    unlinked: int
    twice: int
    violations: list
    seconds: float
    slowest: str
    times: str
    directory: str

    @property
    def faults_done(self):
        return len(self.faults)

    def __str__(self):
        lines = ["%s: %d faults, %d operations (%d failed), %d objects (%d unlinked), %.0f s: %s"
                 % (self.plan, len(self.faults), self.operations, self.failures, self.objects,
                    self.unlinked, self.seconds,
                    "%d VIOLATIONS, see %s" % (len(self.violations), self.directory)
                    if self.violations else "no violation")]
        lines += ["  %d writes that were sent again took effect twice" % self.twice
                  ] if self.twice else []
        lines.append("  seconds: %s" % self.times)
        lines.append("  slowest: %s" % self.slowest)
        lines += ["  %6.1f  %s" % fault for fault in self.faults]
        lines += ["  VIOLATION %s" % violation for violation in self.violations]
        return "\n".join(lines)


def thrash(plan: Plan, directory=None, keep=False) -> Verdict:
    """Run one round.  Its files are kept where it failed, or where ``keep`` says so."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="thrash-%d-" % plan.seed, dir=directory))
    with contextlib.ExitStack() as stack:
        network = Namespaces() if plan.net == "namespaces" else PlainNetwork()
        stack.callback(network.close)
        zookeeper = None
        if plan.driver == "zookeeper":
            zookeeper = stack.enter_context(ZooKeeper(network))
            coordination = "%s,timeout=%d" % (
                zookeeper.spec("thrash"), _SESSION_TIMEOUT * 1000)
        else:
            coordination = "local:%s,timeout=%d" % (
                root / "coordination", _SESSION_TIMEOUT * 1000)
        farm = Farm(root, coordination, plan.runtime, network, sync=plan.sync, disk=plan.disk,
                    clocks=Clocks(root) if plan.clock else None)
        stack.callback(farm.close)
        verdict = _Round(plan, farm, zookeeper).run()
    if not verdict.violations and not keep:
        shutil.rmtree(root, ignore_errors=True)
    return verdict


class _Round:
    def __init__(self, plan, farm, zookeeper):
        self._plan = plan
        self._farm = farm
        self._zookeeper = zookeeper
        self._history = History()
        self._violations = []
        self._objects = 0
        self._unlinked = []
        self._twice = 0
        self._watch = Stopwatch()

    def run(self):
        plan, farm, watch = self._plan, self._farm, self._watch
        began = time.monotonic()
        nemesis = Nemesis(
            farm, plan.seed, session_timeout=_SESSION_TIMEOUT, patience=_HEALING_TIME,
            zookeeper=self._zookeeper, only=plan.only, most_affected=plan.tolerated(),
            stopwatch=watch)
        crowd = Crowd(plan.seed, self._history, timeout=_CLIENT_TIMEOUT)
        try:
            with watch.of("set-up"):
                farm.start(plan.sheep, plan.policy, format_options=("-l",) if plan.lock else ())
                crowd.start(farm.addresses, owners=plan.owners, sharers=plan.sharers,
                            lock=plan.lock)
            nemesis.run(plan.faults)
            with watch.of("healing"):
                nemesis.heal()
                self._wait_for_clients(crowd)
            self._stop(crowd)
            self._look_at_rest(crowd)
        except Exception as error:
            self._violations.append(
                "heals not: %s" % error if isinstance(error, (HealsNot, AssertionError))
                else "cannot go on: %s" % traceback.format_exc())
            farm.dump_stacks()
            self._stop(crowd)
        self._violations += farm.complaints()
        self._history.save(farm.root / "history")
        with watch.of("checker"):
            found = check(self._history.events)
        self._violations += [str(each) for each in found if each.rule != "twice"]
        self._twice = len({
            (each.volume, each.text) for each in found if each.rule == "twice"})
        return Verdict(
            plan, nemesis.faults, sum(client.done for client in crowd.clients),
            sum(client.failures for client in crowd.clients), self._objects,
            len(self._unlinked), self._twice, self._violations, time.monotonic() - began,
            self._slowest(crowd, began), str(watch), str(farm.root))

    @staticmethod
    def _slowest(crowd, began):
        """What clients had to wait for longest."""
        waits = sorted((client.slowest for client in crowd.clients), reverse=True)
        return ", ".join("%.1f s (%s, till %.1f)" % (took, what, end - began)
                         for took, end, what in waits[:3])

    def _stop(self, crowd):
        with self._watch.of("clients' end"):
            self._violations += crowd.stop(2 * _CLIENT_TIMEOUT)
        self._violations += crowd.complaints()
        log.info("%s reads did without a sheep", " and ".join(
            str(watcher.direct_reads) for watcher in crowd.watchers))

    def _wait_for_clients(self, crowd):
        """All must get on with their work by themselves."""
        moment = time.monotonic()
        removed = {sheep.address for sheep in self._farm.sheep if sheep.removed}
        wait_until(lambda: not crowd.stuck_since(moment, removed), 2 * _CLIENT_TIMEOUT,
                   lambda: "%s to get on" % ", ".join(crowd.stuck_since(moment, removed)))

    def _look_at_rest(self, crowd):
        farm = self._farm
        addresses = [farm.sheep[index].address for index in farm.members]
        with self._watch.of("last look"):
            complaints = look_everywhere(self._history, crowd, addresses, _LOOK_TIMEOUT)
            if complaints:
                farm.dump_stacks()
            self._violations += complaints
            locks = farm.locks()
            if locks:
                self._violations.append("locks that nobody should hold: %s" % " ".join(locks))
        with self._watch.of("rest"):
            self._wait_for_rest()
        with self._watch.of("shutdown"):
            if self._plan.seed % 2:
                farm.kill_all()
            else:
                # Not one by one, or the last would begin to recover what the first had.
                farm.dog("cluster", "shutdown")
                farm.wait_all_ended()
        directories = {
            farm.sheep[index].address: farm.sheep[index].directory for index in farm.members}
        with self._watch.of("offline"):
            findings = offline.compare(directories)
        self._violations += findings.violations
        self._objects = findings.objects
        self._unlinked = findings.unlinked

    def _wait_for_rest(self):
        """Until nothing changes in the stores any more, and nothing has to."""
        seen, since = None, time.monotonic()
        end = since + _RECLAIM_TIME
        # Objects at rest are cut into strips after a while.
        quiet = 4 if ":" in self._plan.policy else 2
        while time.monotonic() < end:
            now = self._names()
            if now != seen:
                seen, since = now, time.monotonic()
            elif not now[1] and time.monotonic() - since > quiet and not offline.leftovers(
                    self._farm.sheep[index].directory for index in self._farm.members):
                return
            time.sleep(0.5)

    def _names(self):
        """(names of current objects, of former ones) on all members."""
        current, former = set(), set()
        for index in self._farm.members:
            directory = self._farm.sheep[index].directory
            current |= {(index, name) for name in os.listdir(directory / "obj")}
            for epoch in os.listdir(directory / "stale"):
                with contextlib.suppress(FileNotFoundError):
                    former |= {(index, epoch, name)
                               for name in os.listdir(directory / "stale" / epoch)}
        return current, former
