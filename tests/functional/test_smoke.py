"""The whole of it in short, on every runtime with every coordination driver."""

import random

import pytest

MIB = 1 << 20


@pytest.mark.everywhere
def test_a_vdi_lives_through_death_return_and_growth(cluster):
    data = random.Random(1).randbytes(20 * MIB)
    with cluster.client() as client:
        client.create_vdi("alice", len(data))
        with client.open_vdi("alice") as vdi:
            vdi.pwrite(0, data)
            cluster.wait_epoch(1)
            assert cluster.info(0).epoch == 1

            cluster.kill(2)
            cluster.wait_recovered()
            assert cluster.info(0).epoch == 2
            assert vdi.pread(0, len(data)) == data

            data = data[:MIB] + bytes(MIB) + data[2 * MIB:]
            vdi.pwrite(MIB, bytes(MIB))
            cluster.restart(2)
            cluster.wait_recovered()
            assert cluster.objects(2) == cluster.objects(0) == cluster.objects(1)
            assert vdi.pread(0, len(data)) == data

            newcomer = cluster.add(zone=99)
            cluster.wait_recovered()
            assert cluster.objects(newcomer)
            for name in cluster.objects(newcomer):
                assert len(cluster.object_files(name)) == 3
            assert vdi.pread(0, len(data)) == data


def test_a_frozen_sheep_is_left_out_and_comes_back(cluster):
    with cluster.client(sheep=0) as client:
        client.create_vdi("alice", 4 * MIB)
        with client.open_vdi("alice") as vdi:
            vdi.pwrite(0, b"before")
            cluster.stop(2)
            cluster.wait_recovered()
            vdi.pwrite(0, b"behind")
            cluster.cont(2)
            cluster.wait_recovered()
    with cluster.client(sheep=2) as client, client.open_vdi("alice", read_only=True) as vdi:
        assert vdi.pread(0, 6) == b"behind"
