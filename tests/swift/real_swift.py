"""Swift itself on this host: a proxy, and account, container and object servers for each of
three devices."""

import getpass
import os
import pathlib
import signal
import subprocess
import sys

from tests.functional.harness import HOST, free_port, start, wait_until
from tests.swift.service import is_listening

DEVICES = 3
_PART_POWER = 8
_START_TIMEOUT = 60

_SERVER_CONF = """\
[DEFAULT]
bind_ip = %(host)s
bind_port = %(port)d
workers = 1
user = %(user)s
swift_dir = %(directory)s
devices = %(devices)s
mount_check = false
log_level = WARNING
[pipeline:main]
pipeline = %(kind)s-server
[app:%(kind)s-server]
use = egg:swift#%(kind)s
[container-sync]
internal_client_conf_path = %(directory)s/internal-client.conf
"""

#: What the daemons read objects with.
_INTERNAL_CONF = """\
[DEFAULT]
swift_dir = %s
[pipeline:main]
pipeline = catch_errors symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
[filter:symlink]
use = egg:swift#symlink
[filter:catch_errors]
use = egg:swift#catch_errors
"""

# The command itself looks for swift.conf in /etc/swift.
_CONTAINER_SYNC = """\
import sys
from swift.common import utils
utils.set_swift_dir(sys.argv.pop(1))
from swift.container.sync import main
sys.exit(main())
"""


class RealSwift:
    """``proxy_conf``: a file for our application, in whose place Swift's own comes; its directory
    becomes Swift's."""

    def __init__(self, proxy_conf):
        self.proxy_conf = pathlib.Path(proxy_conf)
        self.proxy_conf.write_text(self.proxy_conf.read_text().replace(
            "use = egg:sheepstack#swift", "use = egg:swift#proxy\nnode_timeout = 60"))
        self.directory = self.proxy_conf.parent
        self._processes = []
        self._bin = pathlib.Path(sys.executable).parent

    def start(self, port):
        for kind in ("account", "container", "object"):
            ring = self.directory / (kind + ".builder")
            self._ring(ring, "create", _PART_POWER, DEVICES, 1)
            for number in range(DEVICES):
                devices = self.directory / ("node%d" % number)
                (devices / "d").mkdir(parents=True, exist_ok=True)
                server_port = free_port()
                config = self.directory / ("%s-server-%d.conf" % (kind, number))
                config.write_text(_SERVER_CONF % {
                    "host": HOST, "port": server_port, "user": getpass.getuser(),
                    "directory": self.directory, "devices": devices, "kind": kind})
                self._ring(ring, "add", "r1z%d-%s:%d/d" % (number + 1, HOST, server_port), 1)
                self._start("swift-%s-server" % kind, config, server_port)
            self._ring(ring, "rebalance")
        # The second storage policy keeps its objects on the same devices.
        (self.directory / "object-1.ring.gz").write_bytes(
            (self.directory / "object.ring.gz").read_bytes())
        self._start("swift-proxy-server", self.proxy_conf, port)
        return self

    @property
    def pids(self) -> set:
        return {process.pid for process in self._processes}

    def container_sync(self):
        """Have the daemon of each node send once what is to be sent; what they say."""
        (self.directory / "internal-client.conf").write_text(_INTERNAL_CONF % self.directory)
        said = []
        for number in range(DEVICES):
            done = subprocess.run(
                [sys.executable, "-c", _CONTAINER_SYNC, self.directory,
                 self.directory / ("container-server-%d.conf" % number), "once"],
                capture_output=True, text=True, timeout=120)
            said.append(done.stdout + done.stderr)
            assert done.returncode == 0, said[-1]
        return "\n".join(said)

    def _ring(self, ring, *arguments):
        subprocess.run([self._bin / "swift-ring-builder", ring, *map(str, arguments)],
                       check=True, stdout=subprocess.DEVNULL, cwd=self.directory)

    def _start(self, command, config, port):
        with (self.directory / "swift.log").open("ab") as log:
            process = start([self._bin / command, config], stdout=log,
                            stderr=subprocess.STDOUT, start_new_session=True)
        self._processes.append(process)

        def listening():
            assert process.poll() is None, "%s ended; see %s/swift.log" % (
                command, self.directory)
            return is_listening(port)
        wait_until(listening, _START_TIMEOUT, "%s to listen" % command)

    def stop(self):
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
