"""A tgtd of our own, and initiators that use what it exports.

The daemon is a process of the test, with its own control socket and portal, so that a tgtd
of the host's and those of other tests never meet it.
"""

import itertools
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

from sheepstack.export.iscsi import Tgtd as Control
from tests.functional.harness import HOST, free_port, start, wait_until

MISSING = [program for program in (
    "tgtd", "tgtadm", "iscsi-ls", "iscsi-inq", "iscsi-readcapacity16", "qemu-img", "qemu-io")
    if not shutil.which(program)]

BLOCK = 64 << 10
#: tgt cuts the number of a sheep's TCP port off after four digits.
_SHORT_PORTS = range(7100, 9999)
_IQN = "iqn.2026-11.sheepstack.test:%d"
_numbers = itertools.count(os.getpid() % 10000 + 1)


def short_port() -> int:
    """A free TCP port of loopback that tgt can connect to."""
    for port in random.sample(_SHORT_PORTS, len(_SHORT_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no TCP port of four digits is free")


class Tgtd:
    """One ``tgtd`` that listens on a loopback port; its log is ``directory/tgtd.log``.

    Raises AssertionError where it does not come up.
    """

    def __init__(self, directory):
        self.log = pathlib.Path(directory) / "tgtd.log"
        self.port = free_port()
        self.control_port = str(next(_numbers))
        self._ids = itertools.count(1)
        # The addresses of Unix sockets have room for 107 bytes only.
        self._short = pathlib.Path(tempfile.mkdtemp(prefix="tgt."))
        self.control_socket = str(self._short / "control")
        self._environment = {**os.environ, "TGT_IPC_SOCKET": self.control_socket}
        #: How sheepstack commands it.
        self.control = Control(self.control_port, self.control_socket)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        with self.log.open("ab") as log:
            self._process = start(
                ["tgtd", "-f", "-C", self.control_port, "--iscsi",
                 "portal=%s:%d" % (HOST, self.port)],
                env=self._environment, stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._answers, 20, lambda: "tgtd to answer; %s" % self.log.read_text())

    def _answers(self):
        assert self._process.poll() is None, "tgtd ended: %s" % self.log.read_text()
        return self._run("--op", "show", "--mode", "system").returncode == 0

    def _run(self, *words):
        return subprocess.run(
            ["tgtadm", "-C", self.control_port, "--lld", "iscsi", *map(str, words)],
            env=self._environment, capture_output=True, text=True, timeout=60)

    def admin(self, *words) -> str:
        """What tgtadm prints.  Raises AssertionError where it fails."""
        done = self._run(*words)
        assert done.returncode == 0, "tgtadm %s: %s%s\n%s" % (
            " ".join(map(str, words)), done.stdout, done.stderr, self.log.read_text()[-2000:])
        return done.stdout

    def export(self, sheep, vdi, over="unix") -> "Disk":
        """Export a VDI through a sheep of the harness, over its Unix socket or ``"tcp"``."""
        if over == "unix":
            source = self.gateway(sheep)
        else:
            source = "tcp:%s:%d" % (HOST, sheep.port)
        return self._export("sheepdog", "%s:%s" % (source, vdi))

    def export_file(self, path) -> "Disk":
        return self._export("rdwr", path)

    def _export(self, kind, store):
        number = next(number for number in self._ids if number not in {
            other.number for other in self.control.targets()})
        name = _IQN % number
        self.admin("--op", "new", "--mode", "target", "--tid", number, "-T", name)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", number, "--lun", 1,
                   "--bstype", kind, "--backing-store", store)
        self.admin("--op", "bind", "--mode", "target", "--tid", number, "-I", "ALL")
        return Disk("%s:%d" % (HOST, self.port), name, self.log)

    def gateway(self, sheep) -> str:
        """The Unix socket of a sheep of the harness, by a path that is short enough."""
        directory = self._short / ("sheep%d" % sheep.index)
        if not directory.exists():
            directory.symlink_to(sheep.socket.parent)
        return "unix:%s" % (directory / sheep.socket.name)

    def withdraw(self, disk):
        """End an export; tgtd closes the VDI."""
        number = disk.name.rpartition(":")[2]
        self.admin("--op", "delete", "--mode", "target", "--tid", number, "--force")

    def targets(self) -> str:
        """What iscsi-ls discovers at our portal."""
        return subprocess.run(
            ["iscsi-ls", "iscsi://%s:%d" % (HOST, self.port)], capture_output=True, text=True,
            check=True, timeout=60).stdout

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self._short)


@pytest.fixture
def tgtd(tmp_path):
    daemon = Tgtd(tmp_path)
    yield daemon
    daemon.close()


class Disk:
    """A logical unit as initiators see it.  ``log`` is tgtd's, for the report of a failure.

    ``chap``: (user, password) to log in with.  ``read_only``: how programs open it.
    """

    def __init__(self, portal, name, log, chap=None, read_only=False):
        self.portal = portal
        self.name = name
        self._log = log
        self._mode = ["-r"] if read_only else []
        self._login = "%s%%%s@" % tuple(chap) if chap else ""

    @property
    def url(self) -> str:
        return "iscsi://%s%s/%s/1" % (self._login, self.portal, self.name)

    def tool(self, *argv) -> str:
        """What a program prints that gets our URL at its end.  Raises AssertionError."""
        done = subprocess.run([*map(str, argv), self.url], capture_output=True, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, timeout=120)
        failed = done.returncode or re.search("failed|error", done.stdout)
        assert not failed, "%s: %s%s\n%s" % (
            argv[0], done.stdout, done.stderr, self._log.read_text()[-2000:])
        return done.stdout

    def size(self) -> int:
        text = self.tool("iscsi-readcapacity16")
        return int(re.search(r"Total size:(\d+)", text)[1])

    def io(self, *commands) -> str:
        """Commands of qemu-io, in one session of its own; what they print."""
        argv = ["qemu-io", *self._mode, "-f", "raw", "-t", "none"]
        for command in commands:
            argv += ["-c", command]
        return self.tool(*argv)

    def write_file(self, path):
        """Copy a file onto the disk, from its beginning on."""
        self._convert(path, self.url)

    def read_file(self, path):
        """Copy the disk into a new file."""
        self._convert(self.url, path)

    @staticmethod
    def _convert(source, target):
        new = [] if str(target).startswith("/") else ["-n"]
        done = subprocess.run(
            ["qemu-img", "convert", *new, "-f", "raw", "-O", "raw", "-t", "none", source, target],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        assert done.returncode == 0, done.stderr


class Writer:
    """Writes blocks of 64 KiB to ``disk`` while the block of the ``with`` statement runs.

    ``blocks``: how many there are, or a range of the numbers of those that are ours.
    ``content`` maps the number of a block to the byte that it is full of; every write that is
    in it was acknowledged.  A write that fails is raised at the end.
    """

    _AT_ONCE = 16

    def __init__(self, disk, blocks, seed):
        self.content = {}
        self.rounds = 0
        self._disk = disk
        self._blocks = range(blocks) if isinstance(blocks, int) else blocks
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *exc_info):
        self._ended.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def wait_rounds(self, count, timeout):
        """Wait for ``count`` more rounds of writes, each of a session of its own."""
        goal = self.rounds + count

        def reached():
            if self._failure is not None:
                raise self._failure
            return self.rounds >= goal

        wait_until(reached, timeout, "writes over iSCSI")

    def _run(self):
        try:
            while not self._ended.is_set():
                self._round()
                self.rounds += 1
        except BaseException as error:
            self._failure = error

    def _round(self):
        pieces = {number: self._random.randrange(1, 256) for number
                  in self._random.sample(self._blocks, self._AT_ONCE)}
        self._disk.io(*["write -P %d %d %d" % (byte, number * BLOCK, BLOCK)
                        for number, byte in pieces.items()])
        self.content.update(pieces)
