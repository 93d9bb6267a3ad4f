"""A libvirtd of our own, which the host's knows nothing of."""

import pathlib
import shutil
import subprocess
import tempfile

from tests.functional.harness import start, wait_until

MISSING = [program for program in ("libvirtd", "virsh", "virt-xml-validate", "xmllint", "unshare")
           if not shutil.which(program)]
if not MISSING and not list(pathlib.Path("/usr/lib").glob(
        "*/libvirt/storage-backend/libvirt_storage_backend_iscsi-direct.so")):
    MISSING.append("libvirt's iscsi-direct pools")

#: Where libvirtd keeps what it has, whatever its configuration says.
_DIRECTORIES = ("/run/libvirt", "/var/lib/libvirt", "/etc/libvirt", "/var/cache/libvirt",
                "/var/log/libvirt")
_START = """set -e
for directory in %s; do mkdir -p $directory; mount -t tmpfs none $directory; done
printf '%%s\\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' \\
    'cgroup_controllers = []' 'remember_owner = 0' 'stdio_handler = "file"' \\
    > /etc/libvirt/qemu.conf
exec libvirtd -f "$1/libvirtd.conf" -p "$1/pid"
""" % " ".join(_DIRECTORIES)


class Libvirtd:
    """Runs as root, with directories that nobody else sees; its log is
    ``directory/libvirtd.log``."""

    def __init__(self, directory):
        self.log = pathlib.Path(directory) / "libvirtd.log"
        # The addresses of Unix sockets have room for 107 bytes only.
        self._short = pathlib.Path(tempfile.mkdtemp(prefix="virt."))
        (self._short / "libvirtd.conf").write_text(
            'unix_sock_dir = "%s"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            'listen_tls = 0\nlog_outputs = "3:stderr"\n' % self._short)
        with self.log.open("ab") as log:
            self._process = start(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh",
                 self._short], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(self._answers, 60, lambda: "libvirtd; %s" % self.log.read_text())
        except BaseException:
            self.close()
            raise

    def _answers(self):
        assert self._process.poll() is None, "libvirtd ended: %s" % self.log.read_text()
        return (self._short / "libvirt-sock").exists() and \
            self._virsh("version").returncode == 0

    def _virsh(self, *words):
        return subprocess.run(
            ["virsh", "-q", "-c", "qemu:///system?socket=%s" % (self._short / "libvirt-sock"),
             *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=120)

    def virsh(self, *words) -> str:
        """What virsh prints.  Raises AssertionError where it fails."""
        done = self._virsh(*words)
        assert done.returncode == 0, "virsh %s: %s%s\n%s" % (
            " ".join(map(str, words)), done.stdout, done.stderr, self.log.read_text()[-3000:])
        return done.stdout

    def is_running(self, domain) -> bool:
        return self._virsh("domstate", domain).stdout.strip() == "running"

    def close(self):
        """End it, and the domains that still run."""
        for domain in self._virsh("list", "--name").stdout.split():
            self._virsh("destroy", domain)
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)
        shutil.rmtree(self._short)
