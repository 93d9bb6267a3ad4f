"""The history of the cluster's membership, as the gateway tells it."""

from typing import NamedTuple

from sheepstack.wire import admin
from sheepstack.wire.header import MAX_DATA_LENGTH, ClusterRequest
from sheepstack.wire.opcodes import Op
from sheepstack.wire.results import Result


class History(NamedTuple):
    """``logs``, the latest epoch first; ``result`` is what the cluster says of its state."""

    result: int
    logs: list


def read(session) -> History:
    """The whole history, or of a very long one as much as fits an answer.

    A cluster that waits for its nodes shows its history too.
    """
    nodes_nr = len(session.nodes())
    while True:
        size = admin.EpochLog.size(nodes_nr)
        count = min(session.epoch, MAX_DATA_LENGTH // size)
        result, reply = session.attempt(ClusterRequest(
            Op.STAT_CLUSTER, data_length=count * size, nodes_nr=nodes_nr))
        if result != Result.BUFFER_SMALL or nodes_nr >= admin.MAX_NODES:
            return History(result, admin.unpack_epoch_logs(reply.payload, nodes_nr))
        nodes_nr = min(2 * nodes_nr, admin.MAX_NODES)


def latest(session) -> admin.EpochLog:
    """What the cluster is now, without its nodes; raises SheepError where it does not run."""
    reply = session.execute(ClusterRequest(
        Op.STAT_CLUSTER, data_length=admin.EpochLog.size(0), nodes_nr=0))
    return admin.EpochLog.unpack(reply.payload, 0)
