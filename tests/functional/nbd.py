"""``sheep-nbd`` on a Unix socket or a TCP port, and NBD clients that use what it exports."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

from tests.functional.harness import HOST, free_port, start, wait_until

MISSING = [program for program in (
    "nbdkit", "nbdinfo", "nbdcopy", "nbdsh", "qemu-img", "qemu-io") if not shutil.which(program)]

#: What users start.
COMMAND = pathlib.Path(sys.executable).with_name("sheep-nbd")
#: It runs the first Python of the path, and libnbd's module is for Debian's.
NBDSH = ("env", "PATH=/usr/bin:/bin", "nbdsh")


class NbdServer:
    """``options`` go to ``sheep-nbd``, ``nbdkit_options`` to nbdkit; ``tcp``: listen on
    loopback, not on a Unix socket.

    Raises AssertionError where it does not come up.
    """

    def __init__(self, directory, gateways, *options, nbdkit_options=(), tcp=False):
        self.log = pathlib.Path(directory) / "sheep-nbd.log"
        # The addresses of Unix sockets have room for 107 bytes only.
        self._short = pathlib.Path(tempfile.mkdtemp(prefix="nbd."))
        self._port = free_port() if tcp else None
        where = ["-i", HOST, "-p", self._port] if tcp else ["-U", self._short / "socket"]
        ready = self._short / "pid"
        with self.log.open("ab") as log:
            self.process = start(
                [COMMAND, "-g", ",".join(gateways), *options, "--", "-f", "-P", ready, *where,
                 *nbdkit_options], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: self._is_ready(ready), 30,
                       lambda: "nbdkit to listen; %s" % self.log.read_text())
        except BaseException:
            self.close()
            raise

    def _is_ready(self, file):
        assert self.process.poll() is None, "sheep-nbd ended: %s" % self.log.read_text()
        return file.exists() and file.read_text().endswith("\n")

    @property
    def socket(self) -> pathlib.Path:
        return self._short / "socket"

    @property
    def address(self) -> tuple:
        return HOST, self._port

    def uri(self, export="", scheme="nbd", login="", query="") -> str:
        """What NBD clients call an export."""
        name = urllib.parse.quote(export, safe="")
        if self._port is None:
            return "%s+unix://%s/%s?socket=%s%s" % (scheme, login, name, self.socket, query)
        return "%s://%s%s:%d/%s%s" % (scheme, login, HOST, self._port, name,
                                      query and "?" + query.lstrip("&"))

    def close(self):
        """End it in good order: it gives its locks back."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self._short)


def run(*argv, status=0, timeout=120) -> str:
    """What a program prints; its complaints where it is expected to end with another status.

    Raises AssertionError for an unexpected status.
    """
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout)
    assert done.returncode == status, "%s ended with %d: %s%s" % (
        argv[0], done.returncode, done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


def io(uri, *commands, cache="none") -> str:
    """Commands of qemu-io; what they print."""
    argv = ["qemu-io", "-f", "raw", "-t", cache]
    for command in commands:
        argv += ["-c", command]
    printed = run(*argv, uri)
    assert "failed" not in printed, printed
    return printed


def info(uri) -> dict:
    """What nbdinfo says of the one export at ``uri``."""
    return json.loads(run("nbdinfo", "--json", uri))["exports"][0]


def listing(uri) -> dict:
    """Exports of a server, by name."""
    found = json.loads(run("nbdinfo", "--json", "--list", uri))["exports"]
    return {export["export-name"]: export for export in found}


def script(uri, text) -> str:
    """What a program of nbdsh prints; ``h`` is a handle that is connected to ``uri``."""
    return run(*NBDSH, "-u", uri, "-c", text)
