"""Who is in the cluster: membership, the cluster map, the leader and locks.

:func:`connect` makes a :class:`~sheepstack.coordination.base.Coordinator` from the words an
operator writes.  Everything stored here is opaque bytes: this package knows nothing of nodes
or of what a map holds.
"""

from sheepstack.coordination.base import Coordinator, Event, SessionState
from sheepstack.coordination.errors import BadSpec, CoordinationError, SessionLost, Unreachable
from sheepstack.coordination.spec import LocalSpec, parse

__all__ = ("BadSpec", "CoordinationError", "Coordinator", "Event", "SessionLost",
           "SessionState", "Unreachable", "connect")


def connect(spec: str, timeout: "float | None" = None,
            connect_timeout: "float | None" = None) -> Coordinator:
    """A coordinator, not yet opened, for ``spec``.

    ``spec`` is ``local[:DIR]`` or ``zookeeper:HOST[:PORT][,HOST[:PORT]...][/CLUSTER-ID]``;
    either may end in ``,timeout=MILLISECONDS``, which wins over the option.

    ``timeout``: seconds until a session whose process is silent counts as dead; the default
    is the driver's.  ``connect_timeout``: seconds that ``open()`` may wait for the service.

    Raises :class:`BadSpec` with one line that says what is wrong.
    """
    parsed = parse(spec, timeout)
    if isinstance(parsed, LocalSpec):
        from sheepstack.coordination.local import LocalCoordinator
        return LocalCoordinator(parsed.directory, parsed.timeout)
    # Not at the top: who runs with the local driver need not have kazoo, nor load it.
    try:
        from sheepstack.coordination.zookeeper import ZooKeeperCoordinator
    except ModuleNotFoundError as error:
        raise CoordinationError("the zookeeper driver needs the package '%s'" % error.name)
    return ZooKeeperCoordinator(parsed.hosts, parsed.cluster_id, parsed.timeout, connect_timeout)
