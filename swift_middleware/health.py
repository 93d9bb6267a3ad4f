"""What works of the things that the API needs: each is asked by itself."""

import socket

import sqlalchemy as sa

from sheepstack.client import SheepError
from sheepstack.wire.admin import ClusterStatus
from swift_middleware.database import engine

_TIMEOUT = 3.0

OK = "ok"


def report(store, options) -> dict:
    """{what: "ok" or what is wrong with it}."""
    told = {"database": _database(store), "cluster": _cluster(store)}
    if options.zookeeper:
        told["zookeeper"] = _zookeeper(options.zookeeper)
    return told


def is_healthy(told) -> bool:
    return all(value == OK for value in told.values())


def _database(store):
    try:
        store.database.read(lambda connection: connection.execute(sa.select(1)).scalar())
    except engine.Unavailable as error:
        return str(error)
    return OK


def _cluster(store):
    try:
        status = store.cluster.info().status
    except SheepError as error:
        return str(error)
    return OK if status == ClusterStatus.OK else "the cluster's status is %s" % (
        ClusterStatus(status).name,)


def _zookeeper(servers):
    """Whether most of the servers accept connections."""
    refused = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT).close()
        except (OSError, ValueError) as error:
            refused.append("%s: %s" % (server, error))
    return OK if 2 * len(refused) < len(servers) else "; ".join(refused)
