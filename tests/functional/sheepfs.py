"""A sheepfs of our own, on a directory of the test."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from tests.functional.harness import start, wait_until

MISSING = [program for program in ("fusermount3", "mke2fs", "e2fsck", "debugfs", "qemu-img",
                                   "qemu-io") if not shutil.which(program)]
if not os.access("/dev/fuse", os.R_OK | os.W_OK):
    MISSING.append("/dev/fuse")

#: Seconds until a request fails that the cluster does not answer.
TIMEOUT = 3


class Mount:
    """``sheepfs`` on ``directory``, which is made, in the foreground.

    ``options`` are added to its command line.  Raises AssertionError where nothing comes up.
    """

    def __init__(self, directory, *options):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.log = self.directory.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = start(
                [sys.executable, "-m", "sheepstack.cmd.sheepfs", "-f", "-t", TIMEOUT, *options,
                 self.directory], stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._is_up, 30, lambda: "sheepfs; %s" % self.log.read_text())

    def _is_up(self):
        assert self.process.poll() is None, "sheepfs ended: %s" % self.log.read_text()
        return self.mounted

    @property
    def mounted(self) -> bool:
        return is_mounted(self.directory)

    def path(self, name) -> pathlib.Path:
        return self.directory / name

    def volume(self, name) -> pathlib.Path:
        return self.directory / "volume" / name

    def order(self, name, text) -> None:
        """Write to a file of the tree.  Raises OSError."""
        data = text if isinstance(text, bytes) else text.encode()
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_TRUNC)
        try:
            assert os.write(descriptor, data) == len(data)
        finally:
            os.close(descriptor)

    def mount(self, vdi) -> pathlib.Path:
        """Mount a VDI; its file."""
        self.order("vdi/mount", vdi + "\n")
        return self.volume(vdi)

    def end(self, number=signal.SIGTERM, timeout=30) -> int:
        """End the process and wait until nothing is mounted; the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        wait_until(lambda: not self.mounted, timeout, "the file system to be unmounted")
        return status

    def close(self):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


def is_mounted(directory) -> bool:
    """Whether a file system is mounted there; asks the kernel alone."""
    with open("/proc/self/mountinfo", "rb") as file:
        return any(line.split(b" ")[4] == os.fsencode(directory) for line in file)
