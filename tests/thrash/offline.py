"""Compares what the stores of a cluster that is down hold: equal, in place, in use.

What should be where is worked out from the last cluster map and from the inodes, and from
nothing else that the daemon may have got wrong.
"""

import contextlib
import hashlib
import os
from collections import defaultdict
from typing import NamedTuple

from sheepstack.placement.cluster_map import ClusterMap
from sheepstack.placement.ring import Ring
from sheepstack.redundancy import erasure
from sheepstack.redundancy import policy as policies
from sheepstack.store.errors import StoreError
from sheepstack.store.objects import ObjectStore
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import InodeHeader, unpack_map
from sheepstack.wire.oid import name_of


_PIECE = 1 << 18


class Inode(NamedTuple):
    """``entries``: {index: vid} of the map, without zeros."""

    header: InodeHeader
    entries: dict


class Copies(NamedTuple):
    """What is in one store: {oid: digest}, and the ids of copies that were set aside."""

    name: str
    digests: dict
    stale: set
    rotten: dict


class Findings(NamedTuple):
    """``violations`` are lines; ``unlinked`` objects of VDIs that are there and whose maps do
    not name them: a client died, or was refused, between the object and its entry."""

    violations: list
    objects: int
    unlinked: list


def compare(directories) -> Findings:
    """Compare the stores of all members, {``host:port``: directory}; none may be in use."""
    stores = {}
    try:
        for name, directory in directories.items():
            stores[name] = ObjectStore(directory)
        return _compare(stores)
    except StoreError as error:
        return Findings(["a store cannot be used: %s" % error], 0, [])
    finally:
        for store in stores.values():
            store.close()


def _compare(stores):
    cluster_map = _last_map(stores)
    violations = []
    names = {node.name for node in cluster_map.nodes}
    if names != set(stores):
        violations.append("the last map has %s, the cluster is %s" % (
            " ".join(sorted(names)), " ".join(sorted(stores))))
    copies = [_examine(name, store) for name, store in sorted(stores.items())]
    inodes = _inodes(stores)
    violations += check_copies(cluster_map, copies, inodes)
    violations += check_strips(cluster_map, stores, inodes)
    present = {oids.whole_oid(oid) for each in copies for oid in each.digests}
    leaks, unlinked = check_use(present, inodes)
    return Findings(violations + leaks, len(present), unlinked)


def leftovers(directories) -> list:
    """What nobody uses, or is missing, in stores that are in use: it may be on its way.

    Reads the files of the objects; these begin with what the object holds.
    """
    present, inodes = set(), {}
    for directory in directories:
        for name in os.listdir(directory / "obj"):
            oid = oids.whole_oid(int(name, 16))
            present.add(oid)
            if oids.is_vdi(oid) and oids.vid_of(oid) not in inodes:
                with contextlib.suppress(FileNotFoundError):
                    inodes[oids.vid_of(oid)] = _read_inode(directory / "obj" / name)
    return check_use({oid for oid in present if not oids.is_vdi(oid)
                      or oids.vid_of(oid) in inodes}, inodes)[0]


def _read_inode(path):
    with open(path, "rb") as file:
        header = InodeHeader.unpack(file.read(layout.INODE_HEADER_SIZE))
        entries = unpack_map(file.read(layout.DATA_INDEX_SIZE))
    return Inode(header, {index: entry for index, entry in enumerate(entries) if entry})


def _last_map(stores):
    maps = []
    for store in stores.values():
        data = store.epochs.get(store.identity.get("last_epoch", 0))
        if data is not None:
            maps.append(ClusterMap.from_bytes(data))
    return max(maps, key=lambda cluster_map: cluster_map.revision)


def _examine(name, store):
    digests, rotten = {}, {}
    for oid in store.oids():
        try:
            if oid in store.suspects:
                # It was being written to when its sheep was killed: so no checksum counts.
                store.accept(oid)
            bad = store.verify(oid)
            if bad:
                rotten[oid] = bad
            digests[oid] = _digest(store, oid)
        except StoreError as error:
            rotten[oid] = str(error)
            digests.setdefault(oid, "unreadable")
    stale = {oid for epoch in store.stale_epochs() for oid in store.stale_oids(epoch)}
    return Copies(name, digests, stale, rotten)


def _digest(store, oid):
    """Of what the object holds; where it has holes makes no difference."""
    size = store.size(oid)
    digest = hashlib.blake2b(b"%d" % size, digest_size=16)
    for offset, length in store.extents(oid):
        for start in range(offset, offset + length, _PIECE):
            piece = bytes(store.read(
                oid, start, min(_PIECE, offset + length - start), False))
            if not piece.strip(b"\0"):
                continue
            # In small pieces, as extents may begin and end elsewhere in another copy.
            for at in range(0, len(piece), 4096):
                data = piece[at:at + 4096]
                if data.strip(b"\0"):
                    digest.update(b"%d" % (start + at))
                    digest.update(data)
    return digest.hexdigest()


def _inodes(stores):
    """{vid: Inode}, each from the first store that has it."""
    inodes = {}
    for store in stores.values():
        for oid in store.oids():
            vid = oids.vid_of(oid)
            if not oids.is_vdi(oid) or vid in inodes:
                continue
            try:
                header = InodeHeader.unpack(bytes(store.read(oid, 0, layout.INODE_HEADER_SIZE)))
                entries = unpack_map(bytes(store.read(
                    oid, layout.DATA_VDI_ID_OFFSET, layout.DATA_INDEX_SIZE)))
            except StoreError:
                continue
            inodes[vid] = Inode(header, {
                index: entry for index, entry in enumerate(entries) if entry})
    return inodes


def check_copies(cluster_map, copies, inodes) -> list:
    """Are all objects on exactly the holders that the ring names, and alike?  Violations."""
    ring = Ring.of(cluster_map)
    violations = []
    for each in copies:
        violations += ["stale: %s still has a former copy of %s" % (each.name, name_of(oid))
                       for oid in sorted(each.stale)]
        violations += ["rotten: %s on %s: %s" % (name_of(oid), each.name, what)
                       for oid, what in sorted(each.rotten.items())]
    holders = defaultdict(dict)
    for each in copies:
        for oid, digest in each.digests.items():
            if not oids.is_strip(oid):
                holders[oid][each.name] = digest
    for oid, found in sorted(holders.items()):
        policy = _policy_of(oid, cluster_map, inodes)
        wanted = {ring.nodes[index].name for index in ring.holders_of(oid, policy)}
        if wanted - set(found):
            violations.append("too few: %s is missing on %s, there on %s" % (
                name_of(oid), " ".join(sorted(wanted - set(found))), " ".join(sorted(found))))
        if set(found) - wanted:
            violations.append("too many: %s is on %s, too" % (
                name_of(oid), " ".join(sorted(set(found) - wanted))))
        if len(set(found.values())) > 1:
            violations.append("unequal: %s: %s" % (name_of(oid), ", ".join(
                "%s %s" % (digest[:8], name) for name, digest in sorted(found.items()))))
    return violations


def _policy_of(oid, cluster_map, inodes):
    inode = inodes.get(oids.vid_of(oid))
    if inode is None or not inode.header.nr_copies or oids.is_attr(oid):
        return cluster_map.copies
    return policies.from_wire(inode.header.nr_copies, inode.header.copy_policy)


def check_strips(cluster_map, stores, inodes) -> list:
    """Where no whole copy is left: are all strips in place, and of the same object?

    Strips of an object that is whole are not looked at: they are of the past.
    """
    ring, violations = Ring.of(cluster_map), []
    whole = {oid for store in stores.values() for oid in store.oids() if not oids.is_strip(oid)}
    cut = defaultdict(dict)
    for name, store in stores.items():
        for strip in store.oids():
            if oids.is_strip(strip) and oids.whole_oid(strip) not in whole:
                cut[oids.whole_oid(strip)][name, oids.strip_position(strip)] = store
    for oid, found in sorted(cut.items()):
        policy = _policy_of(oid, cluster_map, inodes)
        wanted = {(ring.nodes[index].name, position)
                  for position, index in enumerate(ring.holders(oid, policy.width))}
        if wanted - set(found):
            violations.append("too few strips: %s lacks %s" % (
                name_of(oid), sorted(wanted - set(found))))
        strips, versions = {}, set()
        for (name, position), store in found.items():
            strip = oids.strip_oid(oid, position)
            try:
                trailer, data = erasure.unpack_strip(store.read(strip, 0, store.size(strip)))
            except (StoreError, ValueError) as error:
                violations.append("rotten strip: %016x on %s: %s" % (strip, name, error))
                continue
            if (name, position) in wanted:
                versions.add(trailer.version)
                strips[position] = bytes(data)
        if len(versions) > 1:
            violations.append("strips of different versions: %s" % name_of(oid))
        elif len(strips) >= policy.data:
            some = dict(sorted(strips.items(), reverse=True)[:policy.data])
            made = erasure.code_of(policy).rebuild(
                some, [position for position in sorted(strips) if position not in some])
            if any(strips[position] != data for position, data in made.items()):
                violations.append("strips do not fit together: %s" % name_of(oid))
    return violations


def check_use(present, inodes) -> tuple:
    """(violations, unlinked objects): is all there that the inodes name, and nothing else?

    ``present`` is the set of the ids of all objects, ``inodes`` {vid: Inode}.
    """
    violations, unlinked, used = [], [], set()
    for vid, inode in sorted(inodes.items()):
        if inode.header.is_deleted:
            continue
        for index, owner in inode.entries.items():
            oid = oids.data_oid(owner, index)
            used.add(oid)
            if oid not in present:
                violations.append("missing: %s, which VDI %06x (%s) uses" % (
                    name_of(oid), vid, inode.header.name))
    owners = {oids.vid_of(oid) for oid in used}
    for oid in sorted(present):
        vid = oids.vid_of(oid)
        if oids.is_vdi(oid):
            if inodes[vid].header.is_deleted and vid not in owners:
                violations.append("left over: the inode of deleted VDI %06x" % vid)
        elif oids.is_data(oid) and oid not in used:
            inode = inodes.get(vid)
            if inode is None or inode.header.is_deleted:
                violations.append("left over: %s, which nobody uses" % name_of(oid))
            else:
                unlinked.append(name_of(oid))
    return violations, unlinked
