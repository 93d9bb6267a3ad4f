"""A short, fixed set of the thrasher's seeds, and the interleavings that it found by chance.

``make thrash N=1000`` runs many.
"""

import os
import subprocess
import sys
import threading

import pytest

from sheepstack.client import Cluster, SheepError
from tests.thrash.campaign import Plan, thrash

_SECTOR = 512

SEEDS = [
    Plan(seed=1, faults=4, runtime="eventlet", sheep=4, owners=2),
    Plan(seed=2, faults=4, runtime="threading", driver="zookeeper", sheep=4, owners=2),
]

_CUTS = ("cut_from_peers", "cut_from_zookeeper", "cut_from_clients", "cut_one_link", "isolate",
         "lose_one_way")
PARTITIONS = [
    Plan(seed=4, faults=4, runtime="threading", net="namespaces", owners=2, only=_CUTS),
    Plan(seed=5, faults=4, driver="zookeeper", net="namespaces", owners=2, only=_CUTS),
]


@pytest.mark.parametrize("plan", SEEDS, ids=str)
def test_seed(plan, tmp_path):
    verdict = thrash(plan, directory=tmp_path)
    assert verdict.faults_done == plan.faults
    assert not verdict.violations, str(verdict)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root alone")
@pytest.mark.parametrize("plan", PARTITIONS, ids=str)
def test_a_network_that_falls_apart(plan, tmp_path):
    """Sheep are cut off from the others, from ZooKeeper or from their clients, and merge again
    by themselves."""
    test_seed(plan, tmp_path)


def test_a_round_tells_what_it_found(tmp_path):
    """The whole machinery must notice a store that is not as it should be."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.thrash", "--seed", "3", "--faults", "1", "--only", "kill",
         "--runtime", "threading", "--driver", "local", "--net", "plain", "--disk", "0",
         "--no-clock", "--sheep", "4", "--owners", "1", "--sharers", "0", "--dir",
         str(tmp_path), "--keep"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 3 threading local: 1 faults" in done.stdout
    assert "1 faults in 1 rounds: no violation" in done.stdout


@pytest.mark.deployment("eventlet+local", "threading+local")
@pytest.mark.parametrize("gives_up", (True, False), ids=("closed", "open"))
def test_a_gateway_that_was_away_forgets_what_it_was_asked(make_cluster, gives_up):
    """A frozen gateway has a write in its buffers; its client goes to another one, which
    takes the write and later ones.  When the gateway goes on, the first must not come again.
    """
    cluster = make_cluster(3)
    admin = cluster.client()
    admin.create_vdi("disk", 4 << 20, prealloc=True)
    slow = Cluster([cluster.sheep[0].address], timeout=4 if gives_up else 60)
    with admin.open_vdi("disk", lock=False) as check:
        vdi = slow.open_vdi("disk", lock=False)
        vdi.pwrite(0, b"1" * _SECTOR)
        cluster.stop(0)
        writer = threading.Thread(target=_write, args=(vdi, b"2" * _SECTOR), daemon=True)
        writer.start()
        if gives_up:
            writer.join(60)
            assert not writer.is_alive()
        cluster.wait_members([1, 2])
        other = cluster.client(1)
        with other.open_vdi("disk", lock=False) as vdi:
            vdi.pwrite(0, b"3" * _SECTOR)
        cluster.cont(0)
        if not gives_up:
            # Its connection has ended and it has sent the write anew: that may count.
            writer.join(60)
            assert not writer.is_alive()
        cluster.wait_recovered()
        expected = b"3" if gives_up else b"2"
        for index in range(3):
            with cluster.client(index).open_vdi("disk", read_only=True) as vdi:
                assert vdi.pread(0, _SECTOR) == expected * _SECTOR
        assert check.pread(0, _SECTOR) == expected * _SECTOR


def _write(vdi, data):
    try:
        vdi.pwrite(0, data)
    except SheepError:
        pass
