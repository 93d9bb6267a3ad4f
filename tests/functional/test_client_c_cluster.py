"""Our client against C sheep and beside the C dog.

Runs only where ``SHEEPSTACK_C_SHEEP`` and ``SHEEPSTACK_C_DOG`` name those programs.
"""

import pytest

from sheepstack.client import Cluster, ClusterUnreachable, NotSupported, VdiLocked
from tests.functional.c_sheep import DOG, SHEEP, CSheepCluster
from tests.functional.client_behaviour import BEHAVIOURS, MIB, OBJECT, Model, noise
from tests.functional.harness import wait_until

pytestmark = pytest.mark.skipif(
    not SHEEP or not DOG,
    reason="SHEEPSTACK_C_SHEEP and SHEEPSTACK_C_DOG do not name a C sheep and a C dog")


@pytest.fixture(scope="module")
def c_cluster(tmp_path_factory):
    cluster = CSheepCluster(tmp_path_factory.mktemp("c-sheep"))
    yield cluster
    cluster.close()


@pytest.fixture
def client(c_cluster):
    with Cluster(c_cluster.addresses) as client:
        yield client


@pytest.fixture
def disk(client, request):
    """Name of an empty VDI of 64 MiB."""
    name = "disk-%s" % request.node.name[:100]
    client.create_vdi(name, 64 * MIB)
    return name


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda function: function.__name__)
def test_behaviour(client, behaviour):
    behaviour(client, behaviour.__name__)


def test_what_we_write_dog_reads(client, c_cluster, disk):
    data = noise(9 * MIB + 100, 1)
    with client.open_vdi(disk) as vdi:
        vdi.pwrite(3 * MIB + 7, data)
        vdi.snapshot("tag")
        vdi.pwrite(3 * MIB + 7, b"new")
    c_cluster.dog("vdi", "snapshot", "-s", "theirs", disk)
    assert c_cluster.dog("vdi", "read", "-s", "tag", disk, 3 * MIB + 7, len(data)) == data
    assert c_cluster.dog("vdi", "read", disk, 3 * MIB + 7, len(data)) == b"new" + data[3:]


def test_what_dog_writes_we_read(client, c_cluster, disk):
    data = noise(5 * MIB, 2)
    c_cluster.dog("vdi", "write", disk, 2 * MIB, len(data), input=data)
    with client.open_vdi(disk) as vdi:
        assert vdi.pread(2 * MIB, len(data)) == data
        assert vdi.extents(0, 64 * MIB) == [
            (0, 2 * OBJECT, True), (2 * OBJECT, 14 * OBJECT, False)]
        c_cluster.dog("vdi", "snapshot", "-s", "theirs", disk)
        c_cluster.dog("vdi", "write", disk, 0, 3, input=b"dog")
        vdi.pwrite(2 * MIB, b"we")
        assert vdi.pread(0, 3) == b"dog"
    assert c_cluster.dog("vdi", "read", "-s", "theirs", disk, 2 * MIB, len(data)) == data


def test_info_and_nodes(client, c_cluster):
    info = client.info()
    assert (info.nr_copies, info.epoch, len(info.nodes)) == (2, 1, 3)
    assert sorted(str(node.nid) for node in client.nodes()) == sorted(c_cluster.addresses)
    assert client.defaults() == (2, 0, 22)


def test_a_deleted_vdi_leaves_no_object(client, c_cluster):
    before = c_cluster.objects()
    client.create_vdi("leftover", 64 * MIB)
    with client.open_vdi("leftover") as vdi:
        vdi.pwrite(0, noise(20 * MIB, 5))
        vdi.snapshot("s")
        vdi.pwrite(0, b"new")
        vdi.discard(OBJECT, OBJECT)
    assert c_cluster.objects() != before
    client.delete_vdi("leftover")
    client.delete_vdi("leftover", "s")
    wait_until(lambda: c_cluster.objects() <= before, 10, "the objects to go")


def test_hyper_volumes_are_refused(client, c_cluster):
    c_cluster.dog("vdi", "create", "-y", "hyper", "1G")
    with pytest.raises(NotSupported, match="hyper"):
        client.open_vdi("hyper")


def test_dog_and_we_see_the_same_attributes(client, c_cluster, disk):
    client.setattr(disk, "key", b"ours")
    assert c_cluster.dog("vdi", "getattr", disk, "key") == b"ours"
    c_cluster.dog("vdi", "setattr", disk, "key", "theirs")
    assert client.getattr(disk, "key") == b"theirs"


def test_dog_and_we_list_the_same(client, c_cluster, disk):
    client.snapshot(disk, "tag")
    found = {(header.name, header.vdi_id) for header in client.list_vdis()}
    listed = {(line.split()[1].decode(), int(line.split()[7], 16))
              for line in c_cluster.dog("vdi", "list", "-r").splitlines()}
    assert found == listed and len(found) > 1


def test_sharers_see_each_other(tmp_path):
    cluster = CSheepCluster(tmp_path, nodes=2, copies=1, format_options=["-l"])
    try:
        with Cluster(cluster.addresses[0]) as one, Cluster(cluster.addresses[1]) as two:
            one.create_vdi("disk", 64 * MIB)
            with one.open_vdi("disk") as vdi:
                for client in (one, two):
                    with pytest.raises(VdiLocked):
                        client.open_vdi("disk")
                vdi.snapshot("tag")
                with pytest.raises(VdiLocked):
                    two.open_vdi("disk")
            with one.open_vdi("disk", lock="shared") as mine, \
                    two.open_vdi("disk", lock="shared") as yours:
                assert yours.pread(0, 5) == bytes(5)
                mine.pwrite(0, b"hello")
                assert yours.pread(0, 5) == b"hello"
                yours.pwrite(OBJECT + 5, b"world")
                assert mine.pread(OBJECT, 10) == bytes(5) + b"world"
                mine.pwrite(OBJECT, b"+++++")
                assert yours.pread(OBJECT, 10) == b"+++++world"
                with pytest.raises(VdiLocked):
                    two.open_vdi("disk")
            with two.open_vdi("disk") as vdi:
                assert vdi.pread(OBJECT, 10) == b"+++++world"
    finally:
        cluster.close()


def test_the_gateway_dies(tmp_path):
    # C sheep themselves lose writes that are on their way when a node dies, so what is
    # checked was written before that or after recovery.
    cluster = CSheepCluster(tmp_path, nodes=3, copies=2)
    try:
        with Cluster(cluster.addresses) as client:
            client.create_vdi("disk", 64 * MIB)
            with client.open_vdi("disk") as vdi:
                with Model(vdi, threads=4, blocks=8192) as model:
                    wait_until(lambda: model.writes > 200, 30, "writes")
                cluster.kill(0)
                model.check(vdi)
                wait_until(lambda: b"%" not in cluster.dog("node", "recovery"), 30, "recovery")
                with Model(vdi, threads=4, blocks=8192) as later:
                    wait_until(lambda: later.writes > 200, 30, "writes")
                later.check(vdi)
            assert client.lookup("disk").copies == 2
        with Cluster(cluster.addresses[0]) as client, pytest.raises(
                ClusterUnreachable, match="Connection refused"):
            client.lookup("disk")
    finally:
        cluster.close()


def test_objects_are_not_read_directly(client, disk):
    with client.open_vdi(disk) as vdi:
        content = noise(OBJECT, 1)
        vdi.pwrite(0, content)
        for _ in range(3):
            assert vdi.pread(0, OBJECT) == content
            assert vdi.pread(4096, 4096) == content[4096:8192]
        assert not vdi._files._files
