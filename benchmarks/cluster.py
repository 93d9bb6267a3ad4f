"""Sheep of our own on this host, ended with the benchmark."""

import itertools
import pathlib
import socket
import subprocess
import sys
import time

from benchmarks.targets import Target
from sheepstack.client import Cluster
from sheepstack.client.errors import SheepError
from sheepstack.wire import admin
from sheepstack.wire.header import ClusterRequest, version_of
from sheepstack.wire.opcodes import Op

HOST = "127.0.0.1"
_PATIENCE = 120
_POLL = 0.01
#: Each look costs every sheep a connection: a hundred a second of them took a third of the
#: speed of recovery.
_GENTLE_POLL = 0.05
_PORTS = itertools.count(24000)


class BenchmarkFailed(Exception):
    """It cannot go on; the text says why."""


class OwnCluster(Target):
    """``nodes`` sheep below the directory ``root``; ``durable`` False gives them ``-n``.

    Raises BenchmarkFailed where it does not come up.
    """

    def __init__(self, root, runtime, durable, nodes=3, copies=3):
        self._root = pathlib.Path(root)
        self._root.mkdir(parents=True)
        self._runtime = runtime
        self._durable = durable
        self._processes = {}
        self._ports = []
        try:
            for _ in range(nodes):
                self.add()
            super().__init__(
                "%s, %s" % (runtime, "durable" if durable else "no sync"),
                "%s:%d" % (HOST, self._ports[0]))
            self.wait_members()
            self._format(copies)
        except BaseException:
            self._end_all()
            raise

    def add(self, *options) -> int:
        """Start one more sheep with an empty store; its number."""
        index = len(self._ports)
        self._ports.append(free_port())
        self.start(index, *options)
        return index

    def start(self, index, *options):
        """Start a sheep that does not run; returns before it is a member."""
        store = self.store(index)
        argv = [sys.executable, "-m", "sheepstack.cmd.sheep", "-f", "--runtime", self._runtime,
                "-c", "local:%s" % (self._root / "coordination"),
                "-p", str(self._ports[index]), "-z", str(index), *options]
        if not self._durable:
            argv.append("-n")
        with open("%s.log" % store, "ab") as log:
            self._processes[index] = subprocess.Popen(
                [*argv, str(store)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def newest(self) -> int:
        """The number of the running sheep that was added last."""
        return max(self._processes)

    def store(self, index) -> pathlib.Path:
        return self._root / ("sheep%d" % index)

    def kill(self, index):
        """End a sheep as a power failure of its node would."""
        process = self._processes.pop(index)
        process.kill()
        process.wait()

    def stop(self, index):
        """Ask a sheep to end; returns when it has."""
        process = self._processes.pop(index)
        process.terminate()
        process.wait(_PATIENCE)

    def wait_recovered(self) -> None:
        """Return when all that run are members, and no object has to move any more."""
        self.wait_members()
        wait_for("recovery", lambda: all(
            not self._ask(index, Op.STAT_RECOVERY, admin.RecoveryState,
                          admin.RECOVERY_STATE_SIZE).in_recovery
            for index in self._processes), _GENTLE_POLL)

    def wait_members(self) -> None:
        """Return when all that run serve in one epoch, with one another and nobody else."""
        wanted = sorted(self._ports[index] for index in self._processes)

        def agreed():
            infos = [self._ask(index, Op.CLUSTER_INFO, admin.ClusterInfo,
                               admin.MAX_CLUSTER_INFO_SIZE) for index in self._processes]
            return (len({info.epoch for info in infos}) == 1
                    and all(sorted(node.nid.port for node in info.nodes) == wanted
                            for info in infos))

        wait_for("the sheep to find one another", agreed)

    def _ask(self, index, opcode, kind, room):
        # It may be down at the moment: a client that lives longer would shun it for a while.
        with Cluster(["%s:%d" % (HOST, self._ports[index])], timeout=5) as client:
            request = ClusterRequest(opcode, data_length=room, proto_ver=version_of(opcode))
            return kind.unpack(client.execute(request)[1])

    def _format(self, copies):
        format_cluster(self._ports[0], copies)
        self.wait_members()

    def close(self):
        super().close()
        self._end_all()

    def _end_all(self):
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def complain_if_ended(self):
        """Raises BenchmarkFailed where a sheep has ended by itself."""
        for index, process in self._processes.items():
            if process.poll() is not None:
                raise BenchmarkFailed("sheep %d ended with status %d; see %s.log" % (
                    index, process.returncode, self.store(index)))


def format_cluster(port, copies):
    """Raises BenchmarkFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "sheepstack.dog", "cluster", "format", "-c", str(copies),
         "-a", HOST, "-p", str(port)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkFailed("cannot format the cluster: %s" % done.stderr.strip())


def free_port():
    """A TCP port that nobody listens on; each is given out once."""
    for port in itertools.takewhile(lambda port: port < 32000, _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise BenchmarkFailed("no TCP port is free")


def wait_for(what, condition, every=_POLL):
    """Return once ``condition()``, which is asked ``every`` so many seconds, is true; raises
    BenchmarkFailed after two minutes.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if condition():
                return
        except SheepError:
            pass
        if time.monotonic() > deadline:
            raise BenchmarkFailed("waited %d s in vain for %s" % (_PATIENCE, what))
        time.sleep(every)
