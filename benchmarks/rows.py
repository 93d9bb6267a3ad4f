"""Rows that any cluster can run: each takes a target and returns values by row name."""

import os
import time

MIB = 1 << 20
_DEPTH = 4
#: Nothing of it is zero for long, so that answers leave nothing out.
_PIECE = os.urandom(4 * MIB)


def own_name(purpose):
    """Name for a VDI that no other run uses, also where one before was cut short."""
    return "bench-%d-%s" % (os.getpid(), purpose)


def make_disk(target, name, span):
    """A VDI of ``span`` bytes that is full of data."""
    target.client.create_vdi(name, span)
    _fill(target, name, span)


def fill_and_read(target, size):
    """Write a new VDI from end to end, then read it back; seconds of each."""
    name = own_name("fill")
    target.client.create_vdi(name, size)
    try:
        begun = time.perf_counter()
        _fill(target, name, size)
        filled = time.perf_counter()
        with target.client.open_vdi(name, read_only=True) as vdi:
            _in_depth(vdi, size, lambda offset: vdi.submit_pread(offset, len(_PIECE)))
        return filled - begun, time.perf_counter() - filled
    finally:
        target.client.delete_vdi(name)


def _fill(target, name, size):
    with target.client.open_vdi(name) as vdi:
        _in_depth(vdi, size, lambda offset: vdi.submit_pwrite(offset, _PIECE))
        vdi.flush()


def _in_depth(vdi, size, submit):
    under_way = []
    for offset in range(0, size, len(_PIECE)):
        if len(under_way) == _DEPTH:
            under_way.pop(0).result()
        under_way.append(submit(offset))
    for future in under_way:
        future.result()


def snapshot_and_clone(target, disk, count):
    """(seconds of each of ``count`` snapshots, seconds of a clone of each)."""
    client = target.client
    snapshots, clones = [], []
    with client.open_vdi(disk) as vdi:
        for number in range(count):
            # A snapshot of what was never written to since the last one would be no work.
            vdi.pwrite(0, b"changed")
            begun = time.perf_counter()
            vdi.snapshot("bench-%d" % number)
            snapshots.append(time.perf_counter() - begun)
    for number in range(count):
        begun = time.perf_counter()
        client.clone(disk, "bench-%d" % number, own_name("clone-%d" % number))
        clones.append(time.perf_counter() - begun)
    for number in range(count):
        client.delete_vdi(own_name("clone-%d" % number))
        client.delete_vdi(disk, "bench-%d" % number)
    return snapshots, clones
