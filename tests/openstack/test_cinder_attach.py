"""Volumes attached: tgt and libiscsi in place of the kernel's initiator, sheepfs, the client."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

pytest.importorskip("cinder", reason="Cinder is not installed: run make openstack")

from cinder import exception  # noqa: E402
from os_brick.initiator import connector as brick  # noqa: E402
from oslo_rootwrap import wrapper  # noqa: E402

from cinder_driver import exports  # noqa: E402
from sheepstack.client import NoSuchVdi  # noqa: E402
from tests.functional import sheepfs  # noqa: E402
from tests.functional.harness import (  # noqa: E402
    HOST, SheepCluster, start, wait_until)
from tests.functional.tgt import MISSING, Disk, Tgtd  # noqa: E402
from tests.openstack import cinder_objects  # noqa: E402
from tests.openstack.daemon import BIN  # noqa: E402
from tests.openstack.cinder_objects import GIB, snapshot, volume  # noqa: E402

needs_tgt = pytest.mark.skipif(bool(MISSING) or os.geteuid() != 0, reason=(
    "not installed: %s" % ", ".join(MISSING) if MISSING else "tgtd serves only root"))
needs_sheepfs = pytest.mark.skipif(
    bool(sheepfs.MISSING), reason="not there: %s" % ", ".join(sheepfs.MISSING))

#: Who qemu-io says that it is.
QEMU = {"initiator": "iqn.2008-11.org.linux-kvm", "host": "a"}
ANOTHER = {"initiator": "iqn.1993-08.org.debian:01:b", "host": "b"}
OTHER_PORTAL = "127.0.0.2"
pytestmark = pytest.mark.usefixtures("cinder")


@pytest.fixture
def cluster(tmp_path):
    """A cluster of one sheep, at which tgtd is."""
    cluster = SheepCluster(tmp_path / "c", "local:%s" % (tmp_path / "coordination"))
    cluster.start(1, 1)
    yield cluster
    cluster.close()


@pytest.fixture
def client(cluster):
    return cluster.client()


@pytest.fixture
def tgtd(tmp_path, monkeypatch):
    daemon = Tgtd(tmp_path)
    daemon.control.add_portal("%s:%d" % (OTHER_PORTAL, daemon.port))
    monkeypatch.setenv("TGT_IPC_SOCKET", daemon.control_socket)
    yield daemon
    daemon.close()


@pytest.fixture
def driver(backends, cluster, tgtd, tmp_path):
    return backends.make(
        cluster.addresses, sheepdog_iscsi_gateway=tgtd.gateway(cluster.sheep[0]),
        sheepdog_iscsi_directory=str(tmp_path / "targets"),
        sheepdog_iscsi_control_port=int(tgtd.control_port), target_port=tgtd.port,
        target_ip_address="127.0.0.1", target_secondary_ip_addresses=[OTHER_PORTAL])


@pytest.fixture
def disk(tgtd):
    """Function that gives a connection as its initiator sees it, over one of its portals."""
    def disk(connection, path=0, read_only=False):
        data = connection["data"]
        assert connection["driver_volume_type"] == "iscsi" and data["target_lun"] == 1
        assert data["auth_method"] == "CHAP"
        return Disk(data["target_portals"][path], data["target_iqns"][path], tgtd.log,
                    (data["auth_username"], data["auth_password"]), read_only)
    return disk


def made(driver):
    new = volume(pool="copies-1")
    driver.create_volume(new)
    return new


@needs_tgt
def test_iscsi_over_several_portals(driver, client, disk):
    new = made(driver)
    connection = driver.initialize_connection(new, QEMU)
    assert driver.initialize_connection(new, QEMU) == connection
    assert connection["data"]["volume_id"] == new.id
    for path in (0, 1):
        disk(connection, path).io("write -P %d %dM 1M" % (path + 1, path), "flush")
    disk(connection, 0).io("read -P 1 0 1M", "read -P 2 1M 1M")
    with client.open_vdi(new.name, read_only=True) as vdi:
        assert vdi.pread(0, 2 << 20) == b"\1" * (1 << 20) + b"\2" * (1 << 20)
    driver.terminate_connection(new, QEMU)
    driver.terminate_connection(new, QEMU)
    with pytest.raises(AssertionError):
        disk(connection).io("read 0 512")
    driver.delete_volume(new)


class Exporter:
    """A host that exports what the plan says: a tgtd, and ``sheep-iscsi serve``."""

    def __init__(self, directory, name, address, sheep):
        directory.mkdir()
        self.name = name
        self._directory = directory
        self.tgtd = Tgtd(directory)
        self.portal = "%s:%d" % (address, self.tgtd.port)
        if address != HOST:
            self.tgtd.control.add_portal(self.portal)
        self._gateway = self.tgtd.gateway(sheep)
        self.start()

    def start(self):
        with (self._directory / "serve.log").open("ab") as log:
            self.process = start(
                [BIN / "sheep-iscsi", "-g", self._gateway, "-d", self._directory / "targets",
                 "-C", self.tgtd.control_port, "serve", self.name, self.portal],
                env={**os.environ, "TGT_IPC_SOCKET": self.tgtd.control_socket}, stdout=log,
                stderr=subprocess.STDOUT)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, (self._directory / "serve.log").read_text()

    def targets(self):
        return {target.name for target in self.tgtd.control.targets()}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.tgtd.close()


@pytest.fixture
def exporters(cluster, tmp_path):
    """Two hosts, each with a sheep of its own; their portals have addresses of their own."""
    cluster.add()
    made = [Exporter(tmp_path / name, name, address, sheep) for name, address, sheep in (
        ("left", HOST, cluster.sheep[0]), ("right", OTHER_PORTAL, cluster.sheep[1]))]
    yield made
    for exporter in made:
        exporter.close()


@needs_tgt
def test_iscsi_from_several_hosts(backends, cluster, client, exporters):
    left, right = exporters
    driver = backends.make(cluster.addresses, sheepdog_iscsi_exporters=["left", "right"])
    new = made(driver)
    connection = driver.initialize_connection(new, QEMU)
    data = connection["data"]
    assert data["target_portals"] == [left.portal, right.portal]
    assert data["target_iqns"] == [data["target_iqn"]] * 2 and data["target_luns"] == [1, 1]
    assert driver.initialize_connection(new, QEMU) == connection
    chap = data["auth_username"], data["auth_password"]
    paths = [Disk(each.portal, data["target_iqn"], each.tgtd.log, chap) for each in exporters]
    paths[0].io("write -P 1 0 1M", "flush")
    paths[1].io("read -P 1 0 1M", "write -P 2 1M 1M", "flush")
    paths[0].io("read -P 2 1M 1M")
    identities = {each.tool("iscsi-inq", "-i", QEMU["initiator"], "-e", "1", "-c", "131")
                  for each in paths}
    assert len(identities) == 1
    for each in paths:
        with pytest.raises(AssertionError, match="Login Failed|denied|failed"):
            each.tool("iscsi-inq", "-i", ANOTHER["initiator"])
        with pytest.raises(AssertionError, match="Authentication|failed"):
            Disk(each.portal, each.name, left.tgtd.log, (chap[0], "wrong-secret")).tool(
                "iscsi-inq", "-i", QEMU["initiator"])
    new.volume_attachment = cinder_objects.attachments(new, QEMU)
    driver.extend_volume(new, 2)
    for each in paths:
        assert "Total size:%d" % (2 * GIB) in each.tool(
            "iscsi-readcapacity16", "-i", QEMU["initiator"])
    taken = snapshot(new)
    driver.create_snapshot(taken)
    of_snapshot = driver.initialize_connection_snapshot(taken, QEMU)["data"]
    for each in exporters:
        Disk(each.portal, of_snapshot["target_iqn"], each.tgtd.log,
             (of_snapshot["auth_username"], of_snapshot["auth_password"]), True).io(
                 "read -P 2 1M 1M")
    driver.terminate_connection_snapshot(taken, QEMU)
    driver.terminate_connection(new, None, force=True)
    assert not left.targets() and not right.targets()
    driver.delete_snapshot(taken)
    driver.delete_volume(new)
    assert [header.name for header in client.list_vdis()] == ["iscsi-exports"]
    assert not driver.get_manageable_volumes([], None, 9, 0, ["size"], ["asc"])


@needs_tgt
def test_a_host_that_exports_is_away(backends, cluster, exporters):
    """Others do meanwhile; when it is back it does what it has missed."""
    left, right = exporters
    driver = backends.make(cluster.addresses, sheepdog_iscsi_exporters=["left", "right"],
                           sheepdog_iscsi_exporter_timeout=2)
    first, second = made(driver), made(driver)
    name = driver.initialize_connection(first, QEMU)["data"]["target_iqn"]
    right.stop()
    driver.terminate_connection(first, QEMU)
    assert not left.targets() and right.targets() == {name}
    found = driver.initialize_connection(second, QEMU)["data"]
    assert found["target_portal"] == left.portal and "target_portals" not in found
    right.start()
    wait_until(lambda: right.targets() == {found["target_iqn"]}, 60, "the host to catch up")
    wait_until(lambda: len(driver.initialize_connection(second, QEMU)["data"].get(
        "target_portals", ())) == 2, 60, "both portals")
    # A tgtd that was started anew gets its targets back.
    right.tgtd.kill()
    right.tgtd.start()
    wait_until(lambda: right.targets() == {found["target_iqn"]}, 60, "the targets to be back")
    right.stop()
    left.stop()
    with pytest.raises(exception.VolumeBackendAPIException, match="no host exports"):
        driver.initialize_connection(first, QEMU)


@needs_tgt
def test_a_service_that_is_not_root_may_run_tgtadm(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    sudo, rootwrap, conf = exports.root_helper()
    assert (sudo, rootwrap, conf) == ("sudo", "cinder-rootwrap", "/etc/cinder/rootwrap.conf")
    filters = pathlib.Path(exports.__file__).parents[1] / "etc" / "cinder" / "rootwrap.d"
    rules = wrapper.load_filters([str(filters)])
    found = wrapper.match_filter(rules, ["tgtadm", "-C", "0"], ["/usr/sbin"])
    assert found.run_as == "root"
    with pytest.raises(wrapper.NoFilterMatched):
        wrapper.match_filter(rules, ["sh", "-c", "tgtadm"], ["/usr/bin"])


def io_as(initiator, connection, command):
    """A command of qemu-io that gives itself another initiator's name; whether it worked."""
    data = connection["data"]
    done = subprocess.run(
        ["qemu-io", "--object", "secret,id=p,data=%s" % data["auth_password"], "-c", command,
         "--image-opts", "driver=iscsi,transport=tcp,portal=%s,target=%s,lun=1,user=%s,"
         "password-secret=p,initiator-name=%s" % (
             data["target_portal"], data["target_iqn"], data["auth_username"], initiator)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    return done.returncode == 0 and "failed" not in done.stdout


@needs_tgt
def test_each_attachment_has_a_secret_and_lets_one_initiator_in(driver, disk, tgtd):
    """That is multi-attach, too: each sees what the other one wrote."""
    new = made(driver)
    one = driver.initialize_connection(new, QEMU)
    two = driver.initialize_connection(new, ANOTHER)
    assert one["data"]["auth_password"] != two["data"]["auth_password"]
    disk(one).io("write -P 7 0 1M", "flush")
    assert io_as(ANOTHER["initiator"], two, "read -P 7 0 1M")
    assert io_as(ANOTHER["initiator"], two, "write -P 8 0 1M")
    disk(one).io("read -P 8 0 1M")
    assert not io_as(QEMU["initiator"], two, "read 0 512")
    assert not io_as(ANOTHER["initiator"], one, "read 0 512")
    driver.terminate_connection(new, QEMU)
    assert len(tgtd.control.targets()) == 1
    driver.initialize_connection(new, QEMU)
    driver.terminate_connection(new, None, force=True)
    assert not tgtd.control.targets()


@needs_tgt
def test_two_attachments_to_one_host_share_a_connection(driver, disk, tgtd):
    """Which stays until the last of them goes."""
    new = made(driver)
    connection = driver.initialize_connection(new, QEMU)
    assert driver.initialize_connection(new, QEMU) == connection
    driver.initialize_connection(new, ANOTHER)
    new.volume_attachment = cinder_objects.attachments(new, QEMU, QEMU, ANOTHER, None)
    assert driver.terminate_connection(new, QEMU, force=True) is True
    disk(connection).io("write -P 3 0 1M", "flush")
    new.volume_attachment = cinder_objects.attachments(new, QEMU, ANOTHER, None)
    assert driver.terminate_connection(new, QEMU) is False
    with pytest.raises(AssertionError):
        disk(connection).io("read 0 512")
    assert driver.terminate_connection(new, ANOTHER) is False
    assert not tgtd.control.targets()


@needs_tgt
def test_extension_of_what_is_attached(driver, disk):
    new = made(driver)
    connection = driver.initialize_connection(new, QEMU)

    def size():
        text = disk(connection).tool("iscsi-readcapacity16", "-i", QEMU["initiator"])
        return int(re.search(r"Total size:(\d+)", text)[1])

    assert size() == GIB
    new.volume_attachment = cinder_objects.attachments(new, QEMU)
    driver.extend_volume(new, 2)
    assert size() == 2 * GIB


@needs_tgt
def test_snapshot_of_what_is_attached_and_attached_itself(driver, client, disk):
    new = made(driver)
    connection = driver.initialize_connection(new, QEMU)
    disk(connection).io("write -P 1 0 1M", "flush")
    taken = snapshot(new)
    driver.create_snapshot(taken)
    disk(connection).io("write -P 2 0 1M", "flush")
    of_snapshot = driver.initialize_connection_snapshot(taken, QEMU)
    disk(of_snapshot, read_only=True).io("read -P 1 0 1M")
    driver.terminate_connection_snapshot(taken, QEMU)
    disk(connection).io("read -P 2 0 1M")
    assert len([header for header in client.list_vdis() if not header.is_snapshot]) == 1


@needs_tgt
def test_a_host_without_an_initiator_is_refused(driver):
    with pytest.raises(exception.InvalidConnectorException):
        driver.initialize_connection(made(driver), {"host": "a"})


@needs_tgt
def test_processes_with_our_connector_need_no_target(driver, client, tgtd):
    new = made(driver)
    host = brick.get_connector_properties("", "127.0.0.1", False, False)
    connection = driver.initialize_connection(new, host)
    assert connection["driver_volume_type"] == "sheepdog"
    connector = brick.InitiatorConnector.factory("sheepdog", None)
    device = connector.connect_volume(connection["data"])
    file = device["path"]
    file.seek(5000)
    file.write(b"through the client")
    file.flush()
    assert file.seek(0, 2) == GIB
    # Zeros take the place of data, but no room where there was none.
    file.seek(5004)
    assert file.write(bytes(100)) == 100
    file.seek(8 << 20)
    assert file.write(bytes(9 << 20)) == 9 << 20 == file.tell() - (8 << 20)
    connector.disconnect_volume(connection["data"], device)
    driver.terminate_connection(new, host)
    with client.open_vdi(new.name, read_only=True) as vdi:
        assert vdi.pread(5000, 18) == b"thro" + bytes(14)
        assert [part for part in vdi.extents(0, GIB) if part[2]] == [(0, vdi.block_size, True)]
    assert not tgtd.control.targets()
    encrypted = volume(pool="copies-1", encryption_key_id="1")
    driver.create_volume(encrypted)
    assert driver.initialize_connection(
        encrypted, {**host, **QEMU})["driver_volume_type"] == "iscsi"


@needs_sheepfs
def test_local_files_of_sheepfs(backends, cluster, client, tmp_path):
    mount = sheepfs.Mount(tmp_path / "mnt", "-a", cluster.addresses[0])
    try:
        driver = backends.make(cluster.addresses, sheepdog_protocol="local",
                               sheepdog_mount_point=str(mount.directory))
        assert driver.get_volume_stats(True)["storage_protocol"] == "local"
        new = made(driver)
        connection = driver.initialize_connection(new, QEMU)
        assert connection["driver_volume_type"] == "local"
        with open(connection["data"]["device_path"], "r+b") as file:
            file.write(b"a file")
        taken = snapshot(new)
        driver.create_snapshot(taken)
        with open(connection["data"]["device_path"], "r+b") as file:
            file.write(b"is new")
        of_snapshot = driver.initialize_connection_snapshot(taken, QEMU)
        with open(of_snapshot["data"]["device_path"], "rb") as file:
            assert file.read(6) == b"a file"
        driver.terminate_connection_snapshot(taken, QEMU)
        driver.terminate_connection(new, QEMU)
        driver.terminate_connection(new, QEMU)
        driver.delete_snapshot(taken)
        driver.delete_volume(new)
        with pytest.raises(NoSuchVdi):
            client.lookup(new.name)
        assert not list(client.list_vdis())
    finally:
        mount.end()
    shutil.rmtree(mount.directory)
    lost = made(driver)
    with pytest.raises(exception.VolumeBackendAPIException, match="no sheepfs"):
        driver.initialize_connection(lost, QEMU)
