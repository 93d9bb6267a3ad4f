"""What is measured: a cluster, reached at one address."""

import os
import pathlib
import statistics

from sheepstack.client import Cluster

MIB = 1 << 20


class Target:
    """A running cluster.  ``address``: of a gateway, ``host:port``."""

    def __init__(self, name, address):
        self.name = name
        self.address = address
        self.client = Cluster([address])

    def memory(self) -> float:
        """Resident memory of a sheep in MiB, the median of those that run on this host.

        Raises LookupError where none does.
        """
        ports = {node.nid.port for node in self.client.nodes()}
        sizes = [size for size in map(_resident, _listeners(ports).values()) if size]
        if not sizes:
            raise LookupError("no sheep of %s runs on this host" % self.address)
        return statistics.median(sizes) / MIB

    def close(self):
        self.client.close()


def _listeners(ports):
    """{port: pid} of this host's processes that listen on TCP ports; the oldest of several."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            words = line.split()
            port = int(words[1].rpartition(":")[2], 16)
            if words[3] == "0A" and port in ports:
                inodes["socket:[%s]" % words[9]] = port
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        try:
            names = {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:
            continue
        for name in names & inodes.keys():
            port = inodes[name]
            found[port] = min(pid, found.get(port, pid))
    return found


def _resident(pid):
    """Bytes of memory that a process has, 0 where it is gone."""
    try:
        status = pathlib.Path("/proc/%d/statm" % pid).read_text()
    except OSError:
        return 0
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")
