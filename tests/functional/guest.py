"""A virtual machine: Debian's kernel and busybox under QEMU, commanded over its serial line.

It runs from an initramfs that is made here, so that its disks are all that it has of others.
The processor is emulated: where KVM is there it does not always work, and a boot takes but
seconds without.
"""

import gzip
import lzma
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from tests.functional.harness import start, wait_until

_BUSYBOX = "/bin/busybox"
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_BOOT_TIMEOUT = 150
_MARK = "@ended"
#: What the kernel is told, so that the initramfs finds its console.
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 rdinit=/init"

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
%s
stty -echo
echo @ready
while read -r line; do eval "$line"; echo "@ended $?"; done
poweroff -f
"""


def kernels() -> list:
    """(kernel, directory of its modules) that are installed here, the newest last."""
    found = []
    for kernel in sorted(pathlib.Path("/boot").glob("vmlinuz-*"),
                         key=lambda path: [*map(int, re.findall(r"\d+", path.name))]):
        modules = pathlib.Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")
        if (modules / "modules.dep").exists():
            found.append((kernel, modules))
    return found


MISSING = [what for what, there in (
    ("qemu-system-x86_64", shutil.which("qemu-system-x86_64")),
    ("busybox-static", pathlib.Path(_BUSYBOX).exists()),
    ("linux-image-cloud-amd64", kernels())) if not there]


def _needed(modules, names):
    """Paths of modules, each behind those that it needs (see modules.dep(5))."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path.rpartition("/")[2].partition(".")[0]] = [*others.split()[::-1], path]
    order = [path for name in names for path in needs.get(name, ())]
    # What every file system with checksums wants, and no module says.
    order += needs.get("crc32c_generic", ())
    return list(dict.fromkeys(order))


def _uncompressed(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else \
        gzip.decompress(data) if path.suffix == ".gz" else data


def _archive(files) -> bytes:
    """A cpio archive in the "newc" format: (name, mode, content) of each file."""
    pieces = []
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        pieces += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(pieces)


def make_initramfs(path, modules):
    """Write an initramfs whose ``/init`` carries out commands from the console."""
    drivers = _needed(modules, _MODULES)
    loads = "\n".join("insmod /%s" % _flat(driver) for driver in drivers)
    files = [(name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "mnt")]
    files += [("bin/busybox", 0o100755, pathlib.Path(_BUSYBOX).read_bytes()),
              ("init", 0o100755, (_INIT % loads).encode())]
    files += [(_flat(driver), 0o100644, _uncompressed(modules / driver)) for driver in drivers]
    path.write_bytes(gzip.compress(_archive(files), 1))


def _flat(driver):
    return driver.rpartition("/")[2].partition(".")[0] + ".ko"


class Console:
    """The serial line of a guest with our initramfs, at a Unix socket.

    ``alive()``: whether the machine still runs; ``story()``: what it has to say of its end.
    Raises AssertionError where the guest does not boot.
    """

    def __init__(self, path, alive, story):
        self._story = story
        self._text = ""
        self._line = wait_until(lambda: self._connect(path, alive), 30, "the guest's console")
        try:
            self._read_until("@ready", _BOOT_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def _connect(self, path, alive):
        assert alive(), "the guest ended: %s" % self._story()
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
        except OSError:
            line.close()
            return None
        return line

    def _read_until(self, mark, timeout) -> str:
        """What the guest prints up to a line that begins with ``mark``, and that line."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(r"^%s.*$" % re.escape(mark), self._text, re.MULTILINE)
            if found and self._text[found.end():found.end() + 1] == "\n":
                before = self._text[:found.end()]
                self._text = self._text[found.end() + 1:]
                return before
            self._line.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._line.recv(65536)
            except TimeoutError:
                data = b""
            assert data, "the guest does not say '%s' within %g s; it said:\n%s\n%s" % (
                mark, timeout, self._text[-4000:], self._story())
            self._text += data.decode(errors="replace").replace("\r\n", "\n")

    def send(self, command):
        """Start a command of the shell, one line, in the guest."""
        self._line.sendall(command.encode() + b"\n")

    def wait_for(self, mark, timeout=120) -> str:
        """Wait until the guest prints a line that begins with ``mark``; that line."""
        return self._read_until(mark, timeout).splitlines()[-1]

    def finish(self, timeout=120) -> str:
        """What the command that was sent prints.  Raises AssertionError where it fails."""
        lines = self._read_until(_MARK, timeout).splitlines()
        assert lines[-1] == _MARK + " 0", "\n".join(lines)
        return "\n".join(lines[:-1])

    def run(self, command, timeout=120) -> str:
        self.send(command)
        return self.finish(timeout)

    def close(self):
        self._line.close()


class Guest(Console):
    """A machine that is started here.  ``drives`` are values of QEMU's ``-drive``; in the
    guest they are /dev/vda and so on.

    Raises AssertionError where it does not boot.
    """

    def __init__(self, directory, *drives):
        self.log = pathlib.Path(directory) / "guest.log"
        kernel, modules = kernels()[-1]
        initramfs = pathlib.Path(directory) / "initramfs"
        if not initramfs.exists():
            make_initramfs(initramfs, modules)
        self._short = pathlib.Path(tempfile.mkdtemp(prefix="guest."))
        console = self._short / "console"
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                "-accel", "tcg", "-m", "256", "-no-reboot",
                "-chardev", "socket,id=c,path=%s,server=on,wait=off" % console,
                "-serial", "chardev:c", "-kernel", kernel, "-initrd", initramfs,
                "-append", KERNEL_WORDS]
        for drive in drives:
            argv += ["-drive", drive]
        with self.log.open("ab") as log:
            self.process = start(argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            super().__init__(console, lambda: self.process.poll() is None, self.log.read_text)
        except BaseException:
            self._end()
            raise

    def kill(self):
        """End it as when the power goes."""
        self.close()
        self._end()

    def _end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self._short, ignore_errors=True)
