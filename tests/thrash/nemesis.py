"""Breaks things, picked from a seed, and mends them.

At most two sheep are *affected* at a time: down, frozen, cut off, without space, or not yet
recovered from that; fewer where the copy policy bears no more.  So one good copy lives.  A
power failure of the whole cluster may come on top of that.  What the faults are depends on the
seed alone; when they take effect depends on the cluster, too, which has to recover now and then
before the next one.
"""

import contextlib
import logging
import os
import random
import signal
import time
from typing import Callable, NamedTuple

from sheepstack.client import Cluster, SheepError
from sheepstack.wire.header import ObjRequest
from sheepstack.wire.opcodes import Op
from tests.functional.harness import wait_until
from tests.thrash import clocks, disk_faults
from tests.thrash.stopwatch import Stopwatch

log = logging.getLogger(__name__)

_BLOCK = 4096
#: Between two looks whether all is well, each of which asks all sheep.
_LOOK_SECONDS = 0.15


class HealsNot(Exception):
    """The cluster did not recover in time, or not at all."""


class _Cure(NamedTuple):
    due: float
    sheep: int
    text: str
    act: Callable
    stays: bool = False


class Nemesis:
    """``patience`` in seconds is how long the cluster may take to heal."""

    def __init__(self, farm, seed, *, session_timeout, patience=90, zookeeper=None, only=None,
                 most_affected=2, stopwatch=None):
        self.faults = []
        self._stopwatch = stopwatch or Stopwatch()
        self._farm = farm
        self._seed = seed
        self._timeout = session_timeout
        self._patience = patience
        self._zookeeper = zookeeper
        self._cures = []
        self._affected = set()
        self._most_affected = min(most_affected, 2)
        self._began = time.monotonic()
        self._removed = 0
        kinds = [
            (10, self.kill), (5, self.kill_leader), (6, self.freeze_short),
            (5, self.freeze_long), (3, self.terminate), (3, self.power_failure), (3, self.rot),
            (2, self.tear), (2, self.add_node), (2, self.remove_node)]
        if self._most_affected > 1:
            kinds += [(6, self.kill_two), (3, self.kill_while_recovering)]
        if zookeeper is not None:
            kinds += [(3, self.restart_zookeeper), (2, self.pause_zookeeper),
                      (4, self.expire_session)]
        if farm.network.breakable:
            kinds += [(5, self.cut_from_peers), (5, self.isolate), (4, self.lose_one_way),
                      (3, self.slow_network), (4, self.cut_from_clients)]
            if self._most_affected > 1:
                kinds += [(3, self.cut_one_link)]
            if zookeeper is not None:
                kinds += [(5, self.cut_from_zookeeper)]
        if farm.disk:
            kinds += [(5, self.fill_disk)]
        if farm.clocks is not None:
            kinds += [(4, self.change_clock)]
        if disk_faults.are_possible():
            kinds += [(4, self.fail_disk)]
        if only:
            kinds = [(weight, kind) for weight, kind in kinds if kind.__name__ in only]
            if not kinds:
                raise SystemExit("none of these faults is possible here: %s" % " ".join(only))
        self._kinds = kinds

    # -- the run ---------------------------------------------------------------------------

    def run(self, faults):
        """Do so many faults.  Raises HealsNot."""
        self._began = time.monotonic()
        weights = [weight for weight, _ in self._kinds]
        number = 0
        while len(self.faults) < faults:
            # A generator of its own for each, so that no fault's choices disturb the next one's.
            self._draw = draw = random.Random("%s/fault%d" % (self._seed, number))
            number += 1
            with self._stopwatch.of("pauses"):
                self._rest(draw.uniform(0.1, 1.5))
            kind = draw.choices([kind for _, kind in self._kinds], weights)[0]
            with self._stopwatch.of(kind.__name__):
                kind()

    def note(self, text, *values):
        text = text % values
        log.info("nemesis: %s", text)
        self.faults.append((time.monotonic() - self._began, text))

    def heal(self):
        """Mend all that is broken; the cluster recovers by itself."""
        while self._cures:
            self._cure_next()
        self._farm.network.heal()
        self.wait_settled()

    def wait_settled(self):
        """Wait until the cluster is whole and has recovered.  Raises HealsNot."""
        self._wait(self._farm.is_settled, "all of the cluster to recover")
        self._affected.clear()

    def _wait(self, condition, what):
        with self._stopwatch.of("recovery"):
            try:
                wait_until(lambda: self._cure_what_is_due() or condition(), self._patience,
                           lambda: "%s; %s" % (what, self._farm.describe()), _LOOK_SECONDS)
            except AssertionError as error:
                raise HealsNot(str(error)) from None

    def _rest(self, seconds):
        """Let so much time pass, with the cures that are due in it."""
        end = time.monotonic() + seconds
        while True:
            due = min([cure.due for cure in self._cures] + [end])
            time.sleep(max(0, due - time.monotonic()))
            if due == end:
                return
            self._cure_next()

    def _cure_next(self):
        cure = min(self._cures)
        self._cures.remove(cure)
        with self._stopwatch.of("cures"):
            time.sleep(max(0, cure.due - time.monotonic()))
        log.info("nemesis: %s", cure.text)
        cure.act()

    def _cure_what_is_due(self):
        # A node with a very slow line comes and goes, and nobody recovers meanwhile.
        while self._cures and min(self._cures).due <= time.monotonic():
            self._cure_next()

    def _later(self, seconds, sheep, text, act, stays=False):
        self._cures.append(_Cure(time.monotonic() + seconds, sheep, text, act, stays))

    def _broken(self):
        return {cure.sheep for cure in self._cures}

    def _make_room(self, wanted):
        """Have ``wanted`` more sheep that may be affected."""
        while len(self._affected) + wanted > self._most_affected:
            if self._cures and len(self._broken()) + wanted > self._most_affected:
                self._cure_next()
                continue
            while any(cure.stays for cure in self._cures):
                # It is a member all the time, but cannot recover.
                self._cure_next()
            broken = self._broken()
            self._wait(lambda: self._farm.serves_without(broken),
                       "all but %s to recover" % sorted(broken))
            self._affected = set(broken)

    def _pick(self, wanted=1):
        """Indexes of sheep that were well; they are affected from now on."""
        self._make_room(wanted)
        well = [index for index in self._farm.members if index not in self._affected]
        chosen = self._draw.sample(well, wanted)
        self._affected.update(chosen)
        return chosen

    def _pick_all_well(self):
        """Cure everything and wait until all has recovered."""
        while self._cures:
            self._cure_next()
        self.wait_settled()

    # -- processes -------------------------------------------------------------------------

    def kill(self):
        self._kill(self._pick())

    def kill_two(self):
        self._kill(self._pick(2))

    def kill_leader(self):
        self._make_room(1)
        leader = self._farm.leader()
        if leader is None or leader in self._affected:
            leader = self._pick()[0]
        self._affected.add(leader)
        self._kill([leader], "the leader, ")

    def _kill(self, victims, what=""):
        draw = self._draw
        delay = draw.choice((0, 0, draw.uniform(0.2, 2), draw.uniform(2, 8)))
        self.note("SIGKILL of %ssheep %s for %.1f s", what, _names(victims), delay)
        for index in victims:
            self._farm.sheep[index].expected_to_end = True
            self._farm.sheep[index].signal(signal.SIGKILL)
        for index in victims:
            self._farm.sheep[index].wait_ended(20)
            self._restart_later(index, delay)

    def _restart_later(self, index, delay):
        sheep = self._farm.sheep[index]
        if delay:
            self._later(delay, index, "start of sheep %d" % index, sheep.start)
        else:
            sheep.start()

    def kill_while_recovering(self):
        """One dies, and while the others recover what it had, so does another one."""
        first, second = self._pick(2)
        draw = self._draw
        pause = draw.uniform(0.1, 1.5)
        self.note("SIGKILL of sheep %d, and of sheep %d after %.1f s", first, second, pause)
        for index in first, second:
            self._farm.sheep[index].expected_to_end = True
            self._farm.sheep[index].signal(signal.SIGKILL)
            self._farm.sheep[index].wait_ended(20)
            self._restart_later(index, draw.choice((0, draw.uniform(0.5, 6))))
            self._rest(pause)
            if index == first:
                pause = 0

    def terminate(self):
        victim, = self._pick()
        delay = self._draw.choice((0, self._draw.uniform(0.5, 5)))
        self.note("SIGTERM of sheep %d for %.1f s", victim, delay)
        self._farm.sheep[victim].end(signal.SIGTERM)
        self._restart_later(victim, delay)

    def freeze_short(self):
        self._freeze(self._draw.uniform(0.2, 0.7) * self._timeout)

    def freeze_long(self):
        self._freeze(self._draw.uniform(1.1, 3) * self._timeout)

    def _freeze(self, seconds):
        victim, = self._pick()
        self.note("SIGSTOP of sheep %d for %.1f s", victim, seconds)
        self._farm.stop(victim)
        self._later(seconds, victim, "SIGCONT of sheep %d" % victim,
                    lambda: self._farm.cont(victim))

    def power_failure(self):
        while self._cures:
            self._cure_next()
        draw = self._draw
        order = list(self._farm.members)
        draw.shuffle(order)
        pauses = [draw.choice((0, 0, draw.uniform(0.1, 3))) for _ in order]
        self.note("SIGKILL of all; start of %s", _names(order))
        self._farm.kill_all()
        for index, pause in zip(order, pauses):
            time.sleep(pause)
            self._farm.sheep[index].start()
        self.wait_settled()

    # -- members ---------------------------------------------------------------------------

    def add_node(self):
        if len(self._farm.members) > 5:
            self.remove_node()
            return
        self._pick_all_well()
        self.note("new sheep %d", len(self._farm.sheep))
        index = self._farm.add()
        self._affected.add(index)

    def remove_node(self):
        if len(self._farm.members) < 5:
            self.add_node()
            return
        self._pick_all_well()
        victim = self._draw.choice(self._farm.members)
        sheep = self._farm.sheep[victim]
        self.note("sheep %d removed for good", victim)
        sheep.removed = True
        sheep.expected_to_end = True
        if self._draw.random() < 0.5:
            self._farm.dog("node", "kill", "-l", sheep=victim)
            try:
                sheep.wait_ended(30)
            except AssertionError as error:
                raise HealsNot(str(error)) from None
        else:
            sheep.signal(signal.SIGKILL)
            sheep.wait_ended(20)
            # Were all sessions lost before the others know, they would wait for it to return.
            self._wait(lambda: self._farm.is_without(victim), "the map without it")
        # What it had is lost; only one more may fail before that is made good.
        self._affected.add(victim)

    # -- bytes -----------------------------------------------------------------------------

    def rot(self):
        self._spoil("flipped bit", _flip)

    def tear(self):
        self._spoil("torn block", _tear)

    def _spoil(self, what, spoil):
        """Spoil one copy of a data object while its sheep is up or down; have it read then."""
        self._pick_all_well()
        draw = self._draw
        victim = draw.choice(self._farm.members)
        sheep = self._farm.sheep[victim]
        down = draw.random() < 0.5
        if down:
            sheep.end(signal.SIGTERM)
        objects = sorted(name for name in os.listdir(sheep.directory / "obj")
                         if int(name, 16) >> 56 == 0)
        name = draw.choice(objects) if objects else None
        done = name is not None and spoil(sheep.directory / "obj" / name, draw)
        if down:
            sheep.start()
        if not done:
            self.note("nothing on sheep %d to be spoiled", victim)
            return
        self.note("%s in object %s of sheep %d, which is %s", what, name, victim,
                  "down" if down else "up")
        self.wait_settled()
        self._scrub(victim, int(name, 16))

    def _scrub(self, index, oid):
        """Have a sheep read its copy of an object, to its end."""
        piece, offset = 1 << 20, 0
        with Cluster([self._farm.sheep[index].address], timeout=15) as cluster:
            with contextlib.suppress(SheepError):
                while True:
                    cluster.execute(ObjRequest(
                        Op.READ_OBJ, oid=oid, data_length=piece, offset=offset))
                    offset += piece

    def fill_disk(self):
        victim, = self._pick()
        seconds = self._draw.uniform(2, 8)
        self.note("the disk of sheep %d is full for %.1f s", victim, seconds)
        path = self._farm.ballast(victim)
        with open(path, "wb") as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 20))
                ballast.flush()
        if self._draw.random() < 0.4:
            # It must start with a full disk.
            self._farm.kill(victim)
            self._farm.sheep[victim].start()
        self._later(seconds, victim, "space on the disk of sheep %d" % victim, path.unlink,
                    stays=True)

    def fail_disk(self):
        """Some reads, or writes and flushes, of a sheep end with EIO.  After a failed write it
        has to end itself, since it cannot know what is on the disk."""
        victim, = self._pick()
        draw = self._draw
        what = draw.choice(sorted(disk_faults.CALLS))
        every, seconds = draw.randint(2, 40), draw.uniform(1, 6)
        self.note("every %d. %s of sheep %d fails for %.1f s", every, what, victim, seconds)
        sheep = self._farm.sheep[victim]
        sheep.expected_to_end = True
        before = len(sheep.log_text())
        fault = disk_faults.begin(sheep.process.pid, what, every)

        def cure():
            fault.end()
            if sheep.ends_within(1.0) or "the store failed" in sheep.log_text()[before:]:
                sheep.wait_ended(60)
                sheep.start()
            sheep.expected_to_end = False

        self._later(seconds, victim, "the disk of sheep %d works" % victim, cure, stays=True)

    # -- clocks ----------------------------------------------------------------------------

    def change_clock(self):
        """The clock on the wall, that is; what leases are timed by stops with SIGSTOP."""
        victim, = self._pick()
        change = self._draw.choice(("+1h", "-1h", "+40d", "-40d", clocks.STOPPED))
        seconds = self._draw.uniform(0.5, 2) * self._timeout
        self.note("the clock of sheep %d %s for %.1f s", victim,
                  "stands still" if change == clocks.STOPPED else "jumps by %s" % change, seconds)
        self._farm.clocks.change(victim, change)
        self._later(seconds, victim, "the clock of sheep %d set right" % victim,
                    lambda: self._farm.clocks.change(victim, clocks.RIGHT))

    # -- ZooKeeper -------------------------------------------------------------------------

    def restart_zookeeper(self):
        pause = self._draw.choice((0, self._draw.uniform(0, 0.5) * self._timeout,
                                   self._draw.uniform(1, 2) * self._timeout))
        self.note("SIGKILL of ZooKeeper for %.1f s", pause)
        self._zookeeper.kill()
        time.sleep(pause)
        self._zookeeper.start()

    def pause_zookeeper(self):
        pause = self._draw.uniform(0.2, 2) * self._timeout
        self.note("SIGSTOP of ZooKeeper for %.1f s", pause)
        self._zookeeper.pause()
        time.sleep(pause)
        self._zookeeper.resume()

    def expire_session(self):
        victim, = self._pick()
        session = self._session_of(victim)
        if session is None:
            return
        self.note("the session of sheep %d expires", victim)
        with contextlib.suppress(Exception):
            self._zookeeper.expire(session)

    def _session_of(self, index):
        return self._farm.sessions().get(index)

    # -- the network -----------------------------------------------------------------------

    def _others(self, index):
        return [other for other in self._farm.members if other != index]

    def _mend_later(self, victim, least=0.3, most=3):
        seconds = self._draw.uniform(least, most) * self._timeout
        self._later(seconds, victim, "the network of sheep %d mended" % victim,
                    lambda: self._farm.network.mend(victim))
        return seconds

    def cut_from_peers(self):
        victim, = self._pick()
        self.note("sheep %d cut off from all others for %.1f s", victim,
                  self._mend_later(victim))
        for other in self._others(victim):
            self._farm.network.part(victim, other)

    def cut_one_link(self):
        # Either may have to go.
        victim, other = self._pick(2)
        self._mend_later(other)
        self.note("sheep %d and %d cut off from each other for %.1f s", victim, other,
                  self._mend_later(victim))
        self._farm.network.part(victim, other)

    def isolate(self):
        victim, = self._pick()
        network = self._farm.network
        self.note("sheep %d isolated for %.1f s", victim, self._mend_later(victim))
        for other in self._others(victim):
            network.part(victim, other)
        network.lose(victim, network.zookeeper_host)
        if self._draw.random() < 0.5:
            network.part_from_clients(victim)

    def cut_from_clients(self):
        """It is well in the cluster; its clients must go elsewhere, and what they sent last
        must not come later."""
        victim, = self._pick()
        self.note("sheep %d cut off from its clients for %.1f s", victim,
                  self._mend_later(victim, 4, 8))
        self._farm.network.part_from_clients(victim)

    def lose_one_way(self):
        victim, = self._pick()
        network = self._farm.network
        others = self._others(victim)
        direction = self._draw.choice(("from", "to"))
        self.note("packets %s sheep %d get lost for %.1f s", direction, victim,
                  self._mend_later(victim))
        for other in others:
            if direction == "from":
                network.lose(victim, network.host(other))
            else:
                network.lose(other, network.host(victim))

    def slow_network(self):
        victim, = self._pick()
        milliseconds = self._draw.choice((5, 50, 300))
        how = self._farm.network.delay(victim, milliseconds)
        self.note("all that sheep %d sends is %s for %.1f s", victim, how,
                  self._mend_later(victim))

    def cut_from_zookeeper(self):
        victim, = self._pick()
        network = self._farm.network
        self.note("sheep %d cut off from ZooKeeper for %.1f s", victim,
                  self._mend_later(victim))
        network.lose(victim, network.zookeeper_host)


def _names(indexes):
    return ", ".join(map(str, indexes))


def _used_block(path, draw):
    """Number of a block of a file that is not a hole, or None."""
    used = []
    with open(path, "rb") as file:
        position, end = 0, file.seek(0, os.SEEK_END)
        while position < end:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            used += range(position // _BLOCK, -(-hole // _BLOCK))
            position = hole
    return draw.choice(used) if used else None


def _flip(path, draw) -> bool:
    """Flip a bit somewhere in a file."""
    block = _used_block(path, draw)
    if block is None:
        return False
    with open(path, "r+b", buffering=0) as file:
        length = min(_BLOCK, os.fstat(file.fileno()).st_size - block * _BLOCK)
        position = block * _BLOCK + draw.randrange(length)
        byte = os.pread(file.fileno(), 1, position)
        os.pwrite(file.fileno(), bytes((byte[0] ^ 1 << draw.randrange(8),)), position)
    return True


def _tear(path, draw) -> bool:
    """Put half a block of other bytes in."""
    block = _used_block(path, draw)
    if block is None:
        return False
    with open(path, "r+b", buffering=0) as file:
        length = min(_BLOCK, os.fstat(file.fileno()).st_size - block * _BLOCK)
        other = draw.randbytes(length // 2)
        os.pwrite(file.fileno(), other, block * _BLOCK)
    return True
