"""A guest whose disk is a VDI, and the sheep under it."""

import pathlib
import subprocess

import pytest

from tests.functional import nbd
from tests.functional.client_behaviour import MIB
from tests.functional.guest import MISSING, Guest

pytestmark = [
    pytest.mark.skipif(bool(MISSING + nbd.MISSING), reason="not installed: %s" % ", ".join(
        MISSING + nbd.MISSING)),
    pytest.mark.deployment("eventlet+local"),
    pytest.mark.timeout(600),
]

SIZE = 64 * MIB
FILES = 24

_WRITE = (
    "for i in $(seq %d); do dd if=/dev/urandom of=/mnt/$i bs=64k count=8 2>/dev/null && "
    "(cd /mnt && md5sum $i >> sums) && sync && echo wrote $i || break; done" % FILES)


@pytest.fixture
def cluster(make_cluster):
    """Three sheep that keep two copies."""
    return make_cluster(nodes=3, copies=2, settings={"sync": False})


@pytest.fixture
def server(cluster, tmp_path):
    """Serves a VDI with a new file system."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    cluster.client().create_vdi("disk", SIZE)
    server = nbd.NbdServer(tmp_path, cluster.addresses)
    nbd.run("nbdcopy", image, server.uri("disk"))
    yield server
    server.close()


def test_a_guest_sees_nothing_of_lost_sheep(cluster, server, tmp_path):
    """The sheep that serves its disk is killed while it writes, and later another one; then
    the power goes.  What it had synced is there when it starts again, and the file system is
    sound."""
    drive = "file=%s,format=raw,if=virtio,cache=none,discard=unmap" % server.uri("disk")
    guest = Guest(tmp_path, drive)
    try:
        guest.run("mount /dev/vda /mnt")
        guest.send(_WRITE)
        guest.wait_for("wrote 4")
        cluster.kill(0)
        guest.wait_for("wrote 12")
        cluster.restart(0)
        cluster.wait_recovered()
        cluster.kill(1)
        guest.finish()
        assert guest.run("wc -l < /mnt/sums").strip() == str(FILES)
        guest.run("rm /mnt/1 && sed -i 1d /mnt/sums && sync && busybox fstrim /mnt")
        assert "error" not in guest.run("dmesg").lower()
    finally:
        guest.kill()
    guest = Guest(tmp_path, drive)
    try:
        guest.run("mount /dev/vda /mnt")
        checked = guest.run("cd /mnt && md5sum -c sums; cd /")
        assert checked.count(": OK") == FILES - 1, checked
        guest.run("umount /mnt")
    finally:
        guest.kill()
    image = pathlib.Path(tmp_path) / "after"
    nbd.run("nbdcopy", server.uri("disk"), image)
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
