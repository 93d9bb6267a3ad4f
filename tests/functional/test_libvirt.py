"""The definitions that the documentation gives, in a real libvirtd, with guests that use them."""

import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import docutils.core
import docutils.nodes
import pytest

from sheepstack.client import VdiLocked
from sheepstack.export.iscsi import ANYBODY, Targets
from tests.functional import guest, libvirt, nbd, tgt
from tests.functional.client_behaviour import MIB, noise

MISSING = sorted({*guest.MISSING, *libvirt.MISSING, *nbd.MISSING, *tgt.MISSING})
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="not installed: %s" % ", ".join(MISSING)),
    pytest.mark.skipif(os.geteuid() != 0, reason="libvirtd and tgtd are root's here"),
    pytest.mark.deployment("eventlet+local"),
    pytest.mark.timeout(600),
]

PAGE = pathlib.Path(__file__).resolve().parents[2] / "doc" / "source" / "libvirt.rst"
SIZE = 64 * MIB
IQN = "iqn.2026-11.org.example:disk"


def definitions() -> dict:
    """What the documentation defines, by the words behind "type" that tell it apart."""
    page = docutils.core.publish_doctree(PAGE.read_text())
    found = {}
    for block in page.findall(docutils.nodes.literal_block):
        text = block.astext()
        if text.startswith("<"):
            root = ElementTree.fromstring(text)
            kind = root if root.tag == "pool" else root.find("devices/disk")
            found["%s %s" % (kind.tag, kind.get("type"))] = root
    return found


@pytest.fixture
def cluster(make_cluster):
    """Three sheep that keep two copies, know locks, and do not wait for the disk."""
    return make_cluster(copies=2, settings={"sync": False}, format_options=["-l"])


@pytest.fixture
def client(cluster):
    client = cluster.client()
    client.create_vdi("disk", SIZE)
    return client


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory):
    daemon = libvirt.Libvirtd(tmp_path_factory.mktemp("libvirt"))
    yield daemon
    daemon.close()


class Domain:
    """A domain as documented, which boots the kernel and initramfs of our tests."""

    def __init__(self, libvirtd, definition, directory):
        self._libvirtd = libvirtd
        self.name = definition.findtext("name")
        kernel, modules = guest.kernels()[-1]
        initramfs = directory / "initramfs"
        guest.make_initramfs(initramfs, modules)
        # The sockets of libvirt's own have no room for long paths either.
        console = pathlib.Path("/run") / ("sheepstack-console.%d" % os.getpid())
        # KVM is not everywhere, and where it is emulated it is no faster.
        definition.set("type", "qemu")
        definition.find("memory").text = "256"
        system = definition.find("os")
        for tag, text in (("kernel", kernel), ("initrd", initramfs),
                          ("cmdline", guest.KERNEL_WORDS)):
            ElementTree.SubElement(system, tag).text = str(text)
        serial = ElementTree.SubElement(definition.find("devices"), "serial", type="unix")
        ElementTree.SubElement(serial, "source", mode="bind", path=str(console))
        path = directory / "domain.xml"
        ElementTree.ElementTree(definition).write(path)
        libvirtd.virsh("define", path)
        libvirtd.virsh("start", self.name)
        self.console = guest.Console(
            console, lambda: libvirtd.is_running(self.name), libvirtd.log.read_text)

    def end(self):
        self.console.close()
        self._libvirtd.virsh("destroy", self.name)
        self._libvirtd.virsh("undefine", self.name)


def test_definitions_fit_libvirts_schemas(tmp_path):
    found = definitions()
    assert sorted(found) == ["disk network", "disk volume", "pool iscsi-direct"]
    for definition in found.values():
        path = tmp_path / "definition.xml"
        ElementTree.ElementTree(definition).write(path)
        schema = "storagepool" if definition.tag == "pool" else definition.tag
        done = subprocess.run(["virt-xml-validate", path, schema], capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_domain_with_a_disk_on_nbd(cluster, client, libvirtd, tmp_path):
    definition = definitions()["disk network"]
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(8 * MIB, noise(MIB, 1))
    server = nbd.NbdServer(tmp_path, cluster.addresses)
    try:
        definition.find(".//source/host").set("socket", str(server.socket))
        domain = Domain(libvirtd, definition, tmp_path)
        with pytest.raises(VdiLocked):
            client.open_vdi("disk")
        use_the_disk(domain)
        domain.end()
    finally:
        server.close()
    see_what_was_written(client)


def test_a_pool_of_iscsi_targets_and_a_domain_with_one(cluster, client, libvirtd, tmp_path):
    found = definitions()
    pool, definition = found["pool iscsi-direct"], found["disk volume"]
    with client.open_vdi("disk") as vdi:
        vdi.pwrite(8 * MIB, noise(MIB, 1))
    tgtd = tgt.Tgtd(tmp_path)
    try:
        targets = Targets(tgtd.gateway(cluster.sheep[0]), tmp_path / "targets",
                          tgtd=tgtd.control)
        targets.create(IQN, "disk", addresses=[ANYBODY])
        host = pool.find("source/host")
        host.set("name", "127.0.0.1")
        host.set("port", str(tgtd.port))
        path = tmp_path / "pool.xml"
        ElementTree.ElementTree(pool).write(path)
        libvirtd.virsh("pool-define", path)
        libvirtd.virsh("pool-start", "sheep")
        assert "unit:0:0:1" in libvirtd.virsh("vol-list", "sheep")
        size = re.search(r"Capacity: +(\d+)", libvirtd.virsh(
            "vol-info", "--bytes", "--pool", "sheep", "unit:0:0:1"))
        # libvirt takes the number of the last block for how many there are.
        assert int(size[1]) in (SIZE, SIZE - 512)
        domain = Domain(libvirtd, definition, tmp_path)
        use_the_disk(domain)
        domain.end()
        libvirtd.virsh("pool-destroy", "sheep")
    finally:
        tgtd.close()
    see_what_was_written(client)


def use_the_disk(domain):
    console = domain.console
    assert console.run("cat /sys/block/vda/size").strip() == str(SIZE // 512)
    console.run("dd if=/dev/vda of=/mnt/copy bs=1M skip=8 count=1 2>/dev/null")
    console.run("dd if=/mnt/copy of=/dev/vda bs=1M seek=20 conv=fsync 2>/dev/null")
    console.run("printf guest | dd of=/dev/vda bs=1 seek=3 conv=notrunc,fsync 2>/dev/null")


def see_what_was_written(client):
    with client.open_vdi("disk", read_only=True) as vdi:
        assert vdi.pread(20 * MIB, MIB) == noise(MIB, 1)
        assert vdi.pread(0, 10) == b"\0\0\0guest\0\0"
