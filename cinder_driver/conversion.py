"""Images of other formats: qemu-img on a VDI that sheep-nbd lends it for as long as it runs.

So nothing of a disk passes through a file that is as large as the disk.  sheep-nbd is nbdkit,
which runs a command with the URI of what it exports (nbdkit(1), --run).
"""

import os
import shlex
import sys
import tempfile
from typing import NamedTuple

from cinder import exception
from cinder.volume import volume_utils
from oslo_concurrency import processutils
from oslo_utils import units

_SHEEP_NBD = "import sys; from sheepstack.export.nbd.command import main; sys.exit(main())"
#: Where nbdkit puts what it exports into a command.
_URI = '"$uri"'
_TARGET = ('driver=luks,key-secret=key,file.driver=nbd,file.server.type=unix,'
           'file.server.path="$unixsocket",file.export="$exportname"')
#: On a busy host qemu-img may fail to measure how fast it derives keys.
_ATTEMPTS = 5
#: What a LUKS header takes at most of a volume.
_HEADER = 4 * units.Mi


class Nbd(NamedTuple):
    """How sheep-nbd reaches the cluster."""

    addresses: tuple
    auth_key_file: str | None = None
    timeout: float = 30

    def convert_in(self, source, source_format, vdi):
        """Write an image file into a VDI, which has no data where the image has none."""
        self._run(vdi, vdi, "qemu-img convert -n --target-is-zero -f %s -O raw %s %s" % (
            shlex.quote(source_format), shlex.quote(source), _URI))

    def convert_out(self, vdi, tag, target, target_format):
        """Make an image file of a snapshot."""
        self._run(vdi, "%s@%s" % (vdi, tag), "qemu-img convert -f raw -O %s %s %s" % (
            shlex.quote(target_format), _URI, shlex.quote(target)))

    def encrypt_in(self, source, source_format, vdi, size, passphrase, cipher):
        """Write an image file into a VDI of ``size`` bytes, encrypted as LUKS.

        ``cipher``: a dictionary with cipher_alg, cipher_mode and ivgen_alg as qemu-img names
        them.
        """
        with tempfile.NamedTemporaryFile(
                "w", prefix="luks_", dir=volume_utils.image_conversion_dir()) as secret:
            secret.write(passphrase)
            secret.flush()
            key = "--object secret,id=key,format=raw,file=" + shlex.quote(secret.name)
            # The passphrase is a random key: to make guessing it slow is of no use.
            options = ["key-secret=key", "iter-time=100"] + [
                "%s=%s" % (option.replace("_", "-"), value) for option, value in cipher.items()]
            self._run(vdi, vdi, "qemu-img create -q -f luks %s -o %s %s %d && qemu-img convert "
                      "-n %s -f %s --target-image-opts %s %s" % (
                          key, shlex.quote(",".join(options)), _URI, size - _HEADER, key,
                          shlex.quote(source_format), shlex.quote(source), _TARGET),
                      attempts=_ATTEMPTS)

    def _run(self, vdi, export, command, attempts=1):
        words = [sys.executable, "-c", _SHEEP_NBD, "--lock", "shared",
                 "-g", ",".join(self.addresses), "--timeout", "%g" % self.timeout]
        if self.auth_key_file:
            words += ["--auth-key-file", os.path.abspath(self.auth_key_file)]
        words += [vdi, "--", "-U", "-", "-e", export, "--run", command]
        try:
            processutils.execute(*words, attempts=attempts)
        except processutils.ProcessExecutionError as error:
            raise exception.VolumeBackendAPIException(
                data="qemu-img on VDI %s failed: %s" % (vdi, error.stderr)) from error
