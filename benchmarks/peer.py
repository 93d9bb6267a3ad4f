"""The server beside which ours is measured: one that runs, or C sheep started here."""

import os
import pathlib
import subprocess

from benchmarks.cluster import HOST, BenchmarkFailed, format_cluster, free_port, wait_for
from benchmarks.targets import Target
from sheepstack.client import Cluster


class RunningPeer:
    """``address`` of a gateway, HOST:PORT; how durable it is, is up to who started it."""

    def __init__(self, address):
        self._address = address

    def start(self, root, durable) -> Target:
        return Target(self._address, self._address)


class CSheepPeer:
    """``program``: path of a C sheep (1.0); each start makes a new cluster of three."""

    def __init__(self, program):
        self._program = program

    def start(self, root, durable) -> Target:
        return _CSheepCluster(self._program, root, durable)


class _CSheepCluster(Target):
    """C sheep below the directory ``root``, with their ``local`` driver.

    C sheep write with O_DSYNC; ``durable`` False gives them ``-n``.
    """

    def __init__(self, program, root, durable, nodes=3, copies=3):
        root = pathlib.Path(root)
        root.mkdir(parents=True)
        self._processes = []
        ports = [free_port() for _ in range(nodes)]
        try:
            for index, port in enumerate(ports):
                store = root / ("sheep%d" % index)
                store.mkdir()
                argv = [program, "-f", "-c", "local:%s" % (root / "coordination"), "-b", HOST,
                        "-y", HOST, "-p", str(port), "-z", str(index)]
                with open("%s.log" % store, "ab") as log:
                    self._processes.append(subprocess.Popen(
                        [*argv, *([] if durable else ["-n"]), str(store)],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log))
                # They come one by one: their local driver was made for little more.
                wait_for("C sheep %d" % index, lambda: _members(port) == index + 1)
            wait_for("the C sheep to find one another",
                     lambda: all(_members(port) == nodes for port in ports))
            format_cluster(ports[0], copies)
            super().__init__("C sheep", "%s:%d" % (HOST, ports[0]))
        except BaseException:
            self._end_all()
            raise

    def close(self):
        super().close()
        self._end_all()

    def _end_all(self):
        for process in self._processes:
            process.kill()
            process.wait()


def _members(port):
    with Cluster(["%s:%d" % (HOST, port)], timeout=5) as client:
        return len(client.nodes())


def peer_of(text):
    """What ``--peer`` names.  Raises BenchmarkFailed."""
    if os.sep not in text:
        return RunningPeer(text)
    if not os.access(text, os.X_OK):
        raise BenchmarkFailed("there is no program '%s'" % text)
    return CSheepPeer(text)
