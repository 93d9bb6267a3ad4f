"""Are all copies of a VDI's objects there, and are they alike?  If not, they are made so.

Each holder is asked for a hash of its copy.  The copy that more than half of them have is
the right one; those who have none, another one or a rotten one fetch it from a node that has
the right one.
"""

import struct
import sys
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sheepstack.client import SheepError
from sheepstack.dog import vdi_map
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.location import Locations
from sheepstack.dog.output import complain
from sheepstack.dog.progress import Progress
from sheepstack.wire import oid as oids
from sheepstack.wire.admin import pack_address
from sheepstack.wire.header import ForwardRequest, HashResponse, ObjRequest
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.results import Result, describe

_THREADS = 8
_COUNT = struct.Struct("<I")
#: The map may change while an object is looked at.
_ATTEMPTS = 5
#: Objects that are handed to the threads at once.
_BATCH = 256
#: Object ids in one question to a node.
_QUESTION = 1 << 16


class Verdict:
    """What the holders of one object say: ``right`` to copy from, ``wrong`` to be repaired."""

    def __init__(self, digests):
        """``digests``: pairs of node and hash; None: no copy, empty: a rotten one."""
        votes = Counter(digest for _, digest in digests if digest)
        self.complaint = None
        self.right, self.wrong = None, []
        if not votes:
            self.complaint = "no node has %s"
            return
        digest, count = votes.most_common(1)[0]
        if 2 * count <= sum(votes.values()):
            self.complaint = "no majority of %s"
            return
        self.right = next(node for node, theirs in digests if theirs == digest)
        self.wrong = [(node, theirs is None) for node, theirs in digests if theirs != digest]


def objects_of(session, inode: InodeHeader):
    """Ids of the inode and of all data objects, those of its parents among them."""
    yield oids.vdi_oid(inode.vdi_id)
    for index, vid in vdi_map.entries(session, inode):
        yield oids.data_oid(vid, index)


def check_vdi(session, inode: InodeHeader) -> Exit:
    """Check and repair all objects of a VDI; FAILURE where some could not be repaired."""
    locations = Locations(session.nodes())
    copies = min(inode.nr_copies, session.zones())
    healthy = True
    with Progress(inode.vdi_size) as progress, ThreadPoolExecutor(_THREADS) as threads:
        def examine(oid):
            if inode.copy_policy and oids.is_data(oid):
                whole = _check_strips(session, oid, locations.holders(oid, 1)[0], progress)
            else:
                whole = _check_object(session, oid, locations.holders(oid, copies), progress)
            if oids.is_data(oid):
                progress.show((oids.index_of(oid) + 1) * inode.block_size)
            return whole

        batch = []
        for oid in objects_of(session, inode):
            batch.append(oid)
            if len(batch) == _BATCH:
                healthy &= all(list(threads.map(examine, batch)))
                batch = []
        healthy &= all(list(threads.map(examine, batch)))
    print("finish check&repair %s" % inode.name, flush=True)
    return Exit.SUCCESS if healthy else Exit.FAILURE


def _check_object(session, oid, holders, progress):
    verdict = Verdict([(node, _digest(session, oid, node)) for node in holders])
    if verdict.complaint:
        complain(verdict.complaint % oids.name_of(oid))
        return False
    repaired = [_repair(session, oid, verdict.right, node, absent, progress)
                for node, absent in verdict.wrong]
    return all(repaired)


def _check_strips(session, oid, keeper, progress):
    """The first holder of an erasure-coded object compares and mends its parts by itself."""
    request = ForwardRequest(Op.REPAIR_REPLICA, epoch=session.epoch, oid=oid,
                             data_length=_COUNT.size)
    for _ in range(_ATTEMPTS):
        result, reply = session.attempt(request, node=keeper.nid)
        if result != Result.AGAIN:
            break
    if result != Result.SUCCESS:
        complain("failed to repair %s: %s" % (oids.name_of(oid), describe(result)))
        return False
    mended, = _COUNT.unpack(reply.payload)
    if mended:
        progress.line("fixed %d part(s) of %s" % (mended, oids.name_of(oid)))
    return True


def _digest(session, oid, node):
    request = ObjRequest(Op.GET_HASH, epoch=session.epoch, oid=oid, tgt_epoch=session.epoch)
    try:
        reply = session.execute(request, node=node.nid)
    except SheepError as error:
        if error.result == Result.NO_OBJ:
            return None
        if error.result == Result.EIO:
            return b""
        if error.result is None:
            raise
        raise Failure("failed to read %s from %s, %s" % (
            oids.name_of(oid), node.nid, describe(error.result))) from None
    return HashResponse.unpack(reply.header).digest


def _repair(session, oid, source, target, absent, progress):
    request = ForwardRequest(Op.REPAIR_REPLICA, epoch=session.epoch, oid=oid,
                             addr=pack_address(source.nid.addr), port=source.nid.port)
    try:
        session.execute(request, node=target.nid)
    except SheepError as error:
        if error.result is None:
            raise
        complain("failed to repair object %s from %s to %s: %s" % (
            oids.name_of(oid), source.nid, target.nid, describe(error.result)))
        return False
    progress.line("fixed %s %s" % ("missing" if absent else "replica", oids.name_of(oid)))
    return True


def check_existence(session, inode: InodeHeader) -> Exit:
    """Only ask each node whether it has what it should have."""
    locations = Locations(session.nodes())
    copies = min(inode.nr_copies, session.zones())
    expected = {node.nid: [] for node in session.nodes()}
    for oid in objects_of(session, inode):
        in_strips = inode.copy_policy and oids.is_data(oid)
        for node in locations.holders(oid, 1 if in_strips else copies):
            expected[node.nid].append(oid)
    lost = 0
    for nid, wanted in expected.items():
        for oid in _missing(session, nid, wanted):
            print("[%s] oid %s is missing." % (nid, oids.name_of(oid)))
            lost += 1
    if lost:
        print("%s lost %d object(s)." % (inode.name, lost))
        return Exit.FAILURE
    print("%s is fine, no object is missing." % inode.name)
    return Exit.SUCCESS


def _missing(session, nid, wanted):
    """Those of the object ids ``wanted`` that the node does not have."""
    for start in range(0, len(wanted), _QUESTION):
        payload = array("Q", wanted[start:start + _QUESTION])
        if sys.byteorder == "big":
            payload.byteswap()
        payload = payload.tobytes()
        result, reply = session.attempt(ObjRequest(
            Op.OIDS_EXIST, Flag.WRITE | Flag.PIGGYBACK, data_length=len(payload)),
            payload, node=nid)
        if result == Result.SUCCESS:
            continue
        if result != Result.NO_OBJ:
            raise Failure("failed to ask %s for its objects: %s" % (nid, describe(result)))
        answer = array("Q", reply.payload[:len(reply.payload) // 8 * 8])
        if sys.byteorder == "big":
            answer.byteswap()
        yield from answer
