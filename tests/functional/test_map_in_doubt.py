"""A map entry was sent, and nobody knows whether it was written: the answer was lost."""

import contextlib

import pytest

from sheepstack.client.errors import ClusterUnreachable
from sheepstack.wire import oid as oids
from tests.functional.harness import wait_until
from tests.functional.workload import MIB

OBJECT = 4 * MIB


@pytest.fixture
def disks(cluster):
    """The same VDI, open for its owner, and a function that reads it like somebody else."""
    client = cluster.client()
    client.create_vdi("disk", 2 * OBJECT)
    owner = client.open_vdi("disk")

    def seen(offset, length):
        with client.open_vdi("disk", read_only=True) as vdi:
            return vdi.pread(offset, length)

    yield owner, seen
    owner.close()


@contextlib.contextmanager
def lost_answers(vdi, arrives=True):
    """What is written to the map meanwhile has no answer; yields the entries, a list of
    dictionaries, which do not arrive either unless ``arrives``."""
    inode, written = vdi._inode, []
    write = inode._write_batch

    def write_and_lose(entries):
        written.append(dict(entries))
        if arrives:
            write(entries)
        raise ClusterUnreachable("the answer was lost")

    inode._write_batch = write_and_lose
    try:
        yield written
    finally:
        del inode._write_batch


def test_what_others_have_read_is_not_wiped_out(disks):
    owner, seen = disks
    with lost_answers(owner), pytest.raises(ClusterUnreachable):
        owner.pwrite(512, b"first")
    assert seen(512, 5) == b"first"
    owner.pwrite(8192, b"later")
    assert seen(512, 5) == b"first"
    assert owner.pread(512, 5) == b"first"
    assert seen(8192, 5) == owner.pread(8192, 5) == b"later"


def test_it_may_arrive_long_after_its_client_gave_up(disks):
    owner, seen = disks
    with lost_answers(owner, arrives=False) as sent, pytest.raises(ClusterUnreachable):
        owner.pwrite(512, b"first")
    assert owner.pread(512, 5) == seen(512, 5) == bytes(5)
    for entries in sent:
        owner._inode._write_batch(entries)
    assert seen(512, 5) == b"first"
    assert owner.pread(512, 5) == b"first"
    owner.submit_pwrite(8192, b"later").result()
    assert seen(512, 5) == b"first"
    assert seen(8192, 5) == b"later"


def test_what_was_not_written_can_be_written(disks):
    owner, seen = disks
    with lost_answers(owner, arrives=False), pytest.raises(ClusterUnreachable):
        owner.pwrite(512, b"first")
    owner.pwrite(8192, b"later")
    assert owner.pread(8192, 5) == seen(8192, 5) == b"later"
    owner.pwrite(512, b"again")
    assert owner.pread(512, 5) == seen(512, 5) == b"again"


def test_what_is_written_after_a_discard_of_which_nobody_knows_is_kept(disks):
    owner, seen = disks
    owner.pwrite(512, b"first")
    with lost_answers(owner), pytest.raises(ClusterUnreachable):
        owner.discard(0, OBJECT)
    assert seen(512, 5) == owner.pread(512, 5) == bytes(5)
    owner.pwrite(8192, b"later")
    assert seen(8192, 5) == owner.pread(8192, 5) == b"later"
    assert seen(512, 5) == bytes(5)


def test_entries_beside_those_in_doubt_are_not_read_anew(disks):
    owner, seen = disks
    with lost_answers(owner, arrives=False), pytest.raises(ClusterUnreachable):
        owner.pwrite(512, b"first")
    owner.pwrite(OBJECT, b"other")
    known = owner._inode.map
    assert known.peek(0) is None
    assert known.peek(1) == owner._inode.vid
    assert owner.pread(0, 8) == bytes(8)
    assert owner.pread(OBJECT, 5) == seen(OBJECT, 5) == b"other"


def test_a_thorough_discard_takes_what_no_map_names(cluster, disks):
    owner, seen = disks
    with lost_answers(owner, arrives=False), pytest.raises(ClusterUnreachable):
        owner.pwrite(0, b"left over")
    left = oids.data_oid(owner.vdi_id, 0)
    assert seen(0, 9) == bytes(9)
    assert cluster.object_files(left)
    with cluster.client().open_vdi("disk", lock=False) as sweeper:
        sweeper.pwrite(OBJECT, b"named")
        sweeper.discard(0, 2 * OBJECT)
        assert cluster.object_files(left)
        sweeper.pwrite(OBJECT, b"named")
        assert sweeper.unnamed(0, 3 * OBJECT) == sweeper.unnamed(100, 1) == [0]
        assert sweeper.unnamed(OBJECT, sweeper.size) == []

        def taken():
            sweeper.discard(0, 2 * OBJECT, thorough=True)
            return not cluster.object_files(left) and not sweeper.unnamed(0, OBJECT)

        # Zeros are left as long as a new cluster does not know yet that it is complete.
        wait_until(taken, 30, "what is left over to be taken")
    # Its writer, who lives after all, makes it anew.
    owner.pwrite(0, b"again")
    assert seen(0, 9) == b"again" + bytes(4)
