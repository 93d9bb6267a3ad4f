"""The cluster that is thrashed: sheep of the functional tests' harness, and its network.

On the *plain* network all sheep are on loopback.  With *namespaces* each has a network
namespace of its own, joined by a bridge, so that packets between any two can get lost.
"""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys

from sheepstack.client import SheepError
from sheepstack.client.address import parse
from sheepstack.coordination import connect
from sheepstack.wire import admin
from sheepstack.wire.errors import RemoteProtocolError
from tests.functional import harness
from tests.functional.zookeeper_server import ZooKeeperServer

_PORT = 7000


class PlainNetwork:
    """Loopback; nothing in it can be broken."""

    breakable = False
    zookeeper_host = "127.0.0.1"

    def place(self, index):
        """(host, words in front of the command, options) of a sheep."""
        return harness.HOST, (), ()

    def heal(self):
        """Nothing is ever broken."""

    def close(self):
        """Nothing is there to be removed."""


class Namespaces:
    """A bridge with two addresses of the host, one for the clients and one for ZooKeeper, and a
    namespace for each sheep."""

    breakable = True
    _numbers = itertools.count()

    def __init__(self):
        if os.geteuid() != 0:
            raise SystemExit("network namespaces are for root alone")
        number = (os.getpid() * 7 + next(self._numbers)) % 60000
        self._tag = "th%d" % number
        self._subnet = "10.%d.%d" % (64 + number // 250 % 128, number % 250)
        self.clients_host = self._subnet + ".1"
        self.zookeeper_host = self._subnet + ".2"
        self._names = {}
        self._cuts = set()
        _ip("link", "add", self._tag, "type", "bridge")
        for host in self.clients_host, self.zookeeper_host:
            _ip("addr", "add", host + "/24", "dev", self._tag)
        _ip("link", "set", self._tag, "up")

    def host(self, index) -> str:
        return "%s.%d" % (self._subnet, 10 + index)

    def place(self, index):
        """(host, words in front of the command, options) of a sheep."""
        if index not in self._names:
            self._make(index)
        allowed = ("--allow-legacy", self._subnet + ".0/24", "-b", self.host(index))
        return self.host(index), ("ip", "netns", "exec", self._names[index]), allowed

    def _make(self, index):
        name = "%s-%d" % (self._tag, index)
        outside, inside = "%sv%d" % (self._tag, index), "eth0"
        self._names[index] = name
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("link", "set", outside, "master", self._tag, "up")
        self._within(index, "addr", "add", self.host(index) + "/24", "dev", inside)
        self._within(index, "link", "set", inside, "up")
        self._within(index, "link", "set", "lo", "up")
        # So that there is room in front of it for a rule that drops what arrives.
        self._within(index, "rule", "add", "pref", "10", "lookup", "local")
        self._within(index, "rule", "del", "pref", "0")

    def _within(self, index, *words):
        _ip("-n", self._names[index], *words)

    def lose(self, source, host):
        """Packets of sheep ``source`` to ``host`` (an address) get lost from now on."""
        if (source, host) not in self._cuts:
            self._cuts.add((source, host))
            self._within(source, "route", "add", "blackhole", host + "/32")

    def part(self, one, other):
        """Packets between two sheep get lost."""
        self.lose(one, self.host(other))
        self.lose(other, self.host(one))

    def part_from_clients(self, index):
        """Packets between a sheep and the clients, which include ourselves, get lost."""
        self.lose(index, self.clients_host)
        self._within(index, "rule", "add", "pref", "5", "from", self.clients_host, "blackhole")

    def delay(self, source, milliseconds) -> str:
        """Delay all that a sheep sends; how.  Where the kernel cannot do just that, by a slow
        line with a long queue."""
        queue = ["ip", "netns", "exec", self._names[source], "tc", "qdisc", "replace", "dev",
                 "eth0", "root"]
        done = subprocess.run(
            [*queue, "netem", "delay", "%dms" % milliseconds, "%dms" % (milliseconds // 3)],
            capture_output=True)
        if done.returncode == 0:
            return "%d ms late" % milliseconds
        rate = 20_000 // milliseconds
        subprocess.run([*queue, "tbf", "rate", "%dkbit" % rate, "burst", "16kb", "latency", "3s"],
                       check=True, capture_output=True)
        return "slowed down to %d kbit/s" % rate

    def mend(self, index):
        """All packets from and to a sheep arrive again, and at once."""
        mine = self.host(index)
        for source, host in [cut for cut in self._cuts if cut[0] == index or cut[1] == mine]:
            self._cuts.discard((source, host))
            self._within(source, "route", "del", "blackhole", host + "/32")
        for undo in (["ip", "-n", self._names[index], "rule", "del", "pref", "5"],
                     ["ip", "netns", "exec", self._names[index], "tc", "qdisc", "del", "dev",
                      "eth0", "root"]):
            subprocess.run(undo, capture_output=True)

    def heal(self):
        for index in self._names:
            self.mend(index)

    def close(self):
        for name in self._names.values():
            _ip("netns", "del", name)
        _ip("link", "del", self._tag)


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class _Sheep(harness.Sheep):
    """A sheep at its place in the network, on a disk of its own where there is one."""

    def __init__(self, host, prefix, *arguments):
        super().__init__(*arguments)
        self.host = host
        self._prefix = prefix
        self.removed = False

    @property
    def address(self):
        return "%s:%d" % (self.host, self.port)

    @property
    def argv(self):
        return [*self._prefix, *super().argv]

    def ends_within(self, seconds) -> bool:
        """Wait for its end; False where it still runs then."""
        try:
            self.wait_ended(seconds)
        except AssertionError:
            return False
        return True

    def is_listening(self):
        if not self.running:
            return super().is_listening()
        try:
            parse(self.address).connect(1.0).close()
        except OSError:
            return False
        return True


class Farm(harness.SheepCluster):
    """``disk`` in MiB gives each sheep a file system of that size in memory.  ``clocks``:
    :class:`~tests.thrash.clocks.Clocks` of their own, or None."""

    def __init__(self, root, coordination, runtime, network, *, sync=True, disk=0, clocks=None):
        super().__init__(root, coordination, runtime, sync=sync)
        self.clocks = clocks
        self.network = network
        self.disk = disk
        self._mounted = []

    def add(self, *, wait=True, **ignored) -> int:
        """Start one more sheep and return its index."""
        index = len(self.sheep)
        host, prefix, options = self.network.place(index)
        if self.clocks is not None:
            prefix = (*prefix, *self.clocks.prefix(index))
        directory = self.root / ("sheep%d" % index)
        if self.disk:
            directory.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % self.disk, "thrash",
                            directory], check=True)
            self._mounted.append(directory)
            directory = directory / "store"
        argv = ["-c", self.coordination, "-z", index, "--strip-after", "0.3", *options]
        argv += [] if self.sync else ["-n"]
        port = _PORT if self.network.breakable else harness.free_port()
        sheep = _Sheep(host, prefix, index, directory, self.root / ("sheep%d.log" % index),
                       port, argv, self.runtime)
        self.sheep.append(sheep)
        sheep.start()
        if wait:
            self.wait_listening()
        return index

    def dog(self, *args, sheep=None, timeout=60, **ignored):
        """Run dog against a live sheep, or the one with this index; its output."""
        target = self.live[0] if sheep is None else self.sheep[sheep]
        done = subprocess.run(
            [sys.executable, "-m", "sheepstack.dog", *map(str, args), "-a", target.host,
             "-p", str(target.port)], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=timeout)
        if done.returncode:
            raise AssertionError("dog %s ended with status %d: %s" % (
                " ".join(map(str, args)), done.returncode, done.stderr.strip()))
        return done.stdout

    @property
    def members(self) -> list:
        """Indexes of the sheep that should be in the cluster when all is well."""
        return [sheep.index for sheep in self.sheep if not sheep.removed]

    def leader(self):
        """Index of the sheep that leads, or None."""
        with self._coordinator() as coordinator:
            leader = coordinator.leader()
        sessions = {session: index for index, session in self.sessions().items()}
        return sessions.get(leader)

    def sessions(self) -> dict:
        """{index: session id} of the sheep that have one."""
        with self._coordinator() as coordinator:
            entries = coordinator.members()
        nodes = {}
        for session, entry in entries.items():
            node = json.loads(entry)["node"]
            nodes["%s:%d" % (node["host"], node["port"])] = session
        return {sheep.index: nodes[sheep.address] for sheep in self.sheep
                if sheep.address in nodes}

    @contextlib.contextmanager
    def _coordinator(self):
        coordinator = connect(self.coordination)
        coordinator.open(_ignore)
        try:
            yield coordinator
        finally:
            coordinator.close()

    def locks(self) -> list:
        """Names of all coordination locks that somebody holds."""
        with self._coordinator() as coordinator:
            return sorted(name for name in coordinator.locks() if coordinator.holders(name))

    def ballast(self, index) -> pathlib.Path:
        """The file that fills a sheep's disk; with ``disk`` only."""
        return self.root / ("sheep%d" % index) / "ballast"

    def is_settled(self) -> bool:
        """All members agree that they are the cluster, and none has objects to move."""
        wanted = sorted(self.sheep[index].address for index in self.members)
        epochs = set()
        for index in self.members:
            info = self._quietly(self.info, index)
            if (info is None or self._names(info) != wanted
                    or info.status != admin.ClusterStatus.OK):
                return False
            epochs.add(info.epoch)
        return len(epochs) == 1 and all(map(self._has_recovered, self.members))

    def is_without(self, index) -> bool:
        """Those that answer agree that a sheep is not in the cluster any more."""
        infos = [self._quietly(self.info, member) for member in self.members]
        names = [self._names(info) for info in infos if info is not None]
        return bool(names) and not any(self.sheep[index].address in each for each in names)

    def serves_without(self, absent) -> bool:
        """All members are the cluster and recovered; those with the indexes ``absent`` may
        belong to it or not."""
        present = [index for index in self.members if index not in absent]
        wanted = {self.sheep[index].address for index in present}
        possible = {self.sheep[index].address for index in self.members}
        for index in present:
            info = self._quietly(self.info, index)
            if info is None or not wanted <= set(self._names(info)) <= possible:
                return False
        return all(map(self._has_recovered, present))

    def _has_recovered(self, index):
        state = self._quietly(self.recovery, index)
        return state is not None and not state.in_recovery

    def _quietly(self, question, index):
        if not self.sheep[index].running or self.sheep[index].stopped:
            return None
        try:
            return question(index)
        except (SheepError, RemoteProtocolError):
            return None

    def wait_all_ended(self):
        """After the cluster was told to shut down."""
        for index in self.members:
            self.sheep[index].wait_ended(30)

    def dump_stacks(self):
        """Note what all threads of all sheep are at, where py-spy is installed here."""
        spy = pathlib.Path(sys.executable).parent / "py-spy"
        for sheep in self.sheep:
            if spy.exists() and sheep.running:
                with (self.root / ("stacks%d" % sheep.index)).open("wb") as out:
                    subprocess.run([spy, "dump", "--locals", "--pid", str(sheep.process.pid)],
                                   stdout=out, stderr=subprocess.STDOUT)

    def describe(self) -> str:
        return self._describe()

    def close(self):
        super().close()
        for directory in self._mounted:
            subprocess.run(["umount", "--lazy", directory])
        self._mounted = []


class ZooKeeper(ZooKeeperServer):
    """On an address that the sheep of ``network`` can reach."""

    def __init__(self, network):
        super().__init__(host=network.zookeeper_host)


def _ignore(event):
    pass
