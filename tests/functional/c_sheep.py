"""Clusters of C sheep, where somebody has built one.

``SHEEPSTACK_C_SHEEP`` and ``SHEEPSTACK_C_DOG`` are the paths of the programs.
"""

import os
import signal
import subprocess

from tests.functional.harness import HOST, free_port, start, wait_until

SHEEP = os.environ.get("SHEEPSTACK_C_SHEEP")
DOG = os.environ.get("SHEEPSTACK_C_DOG")


class CSheepCluster:
    """``nodes`` C sheep below the directory ``root``, with C's ``local`` driver.

    ``format_options`` go to ``dog cluster format``.
    """

    def __init__(self, root, nodes=3, copies=2, format_options=()):
        self.ports = [free_port() for _ in range(nodes)]
        self._root = root
        self._processes = []
        for index in range(nodes):
            self._start(index)
        self.dog("cluster", "format", "-c", copies, *format_options)

    def _start(self, index):
        store = self._root / ("c%d" % index)
        store.mkdir(exist_ok=True)
        log = (self._root / ("c%d.out" % index)).open("ab")
        with log:
            self._processes.append(start(
                [SHEEP, "-f", "-c", "local:%s" % (self._root / "shm"), "-b", HOST, "-y", HOST,
                 "-p", self.ports[index], "-z", index, store],
                stdout=log, stderr=subprocess.STDOUT))
        wait_until(lambda: self._members(index) == index + 1, 20, "C sheep %d" % index)

    def _members(self, index):
        return len(self.dog("node", "list", "-r", sheep=index, check=False).splitlines())

    @property
    def addresses(self):
        return ["%s:%d" % (HOST, port) for port in self.ports]

    def dog(self, *args, sheep=None, input=None, check=True):
        """Standard output of the C dog, bytes."""
        if sheep is None:
            sheep = next(index for index, process in enumerate(self._processes)
                         if process.poll() is None)
        argv = [DOG, *map(str, args), "-a", HOST, "-p", str(self.ports[sheep])]
        return subprocess.run(argv, input=input, capture_output=True, timeout=60,
                              check=check).stdout

    def objects(self):
        """Names of the data objects that any sheep has."""
        return {path.name for path in self._root.glob("c*/obj/00*")}

    def kill(self, index):
        self._processes[index].send_signal(signal.SIGKILL)
        self._processes[index].wait()

    def close(self):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
