"""What can go wrong between a client and a cluster.

Everything here is a :class:`SheepError`.  Where a sheep said so itself, ``result`` is its
result code; where the client came to the conclusion, ``result`` is None.  A wrong argument
(an offset that is negative, a name that is too long) is a ValueError, as anywhere in Python.
"""

from sheepstack.wire.results import Result, describe


class SheepError(Exception):
    """Base of all errors of the client.

    ``result``: the :class:`~sheepstack.wire.results.Result` behind it, or None.  ``header``
    and ``payload``: the answer that said so, where :meth:`Cluster.execute` raised it.
    """

    header = None
    payload = b""

    def __init__(self, message, result=None):
        super().__init__(message)
        self.result = result


class NoSuchVdi(SheepError):
    """There is no VDI of that name."""


class NoSuchTag(SheepError):
    """The VDI exists, but it has no snapshot of that tag or id."""


class VdiExists(SheepError):
    """A VDI of that name exists already."""


class TagExists(VdiExists):
    """The VDI has a snapshot of that tag already."""


class VdiLocked(SheepError):
    """Somebody else has the VDI open for writing."""


class NoSuchObject(SheepError):
    """The object is not there."""


class NoSuchAttribute(SheepError):
    """The VDI has no attribute of that name."""


class AttributeExists(SheepError):
    """The VDI has that attribute already, and it was to be created anew."""


class ReadOnly(SheepError):
    """A snapshot, or a VDI opened for reading only, cannot be written."""


class NoSpace(SheepError):
    """The sheep have no room for new data."""


class NoFreeVdiId(SheepError):
    """Every VDI id is taken."""


class NotFormatted(SheepError):
    """Nobody has formatted the cluster yet (``dog cluster format``)."""


class WaitingForNodes(SheepError):
    """The cluster waits for nodes of its last epoch (``dog cluster recover force``)."""


class Halted(SheepError):
    """Too few nodes are alive for the redundancy that was promised; nothing was written."""


class ShuttingDown(SheepError):
    """The sheep are shutting down."""


class Busy(SheepError):
    """The sheep asked for patience until our own ran out."""


class InputOutputError(SheepError):
    """A sheep could not read or write its disk."""


class InvalidParameters(SheepError):
    """The sheep understood the request and calls it nonsense."""


class NotSupported(SheepError):
    """The sheep, or this client, cannot do that."""


class VersionMismatch(SheepError):
    """The sheep speaks another version of the protocol."""


class AuthenticationFailed(SheepError):
    """One end does not know the secret that the other one wants to hear."""


class ClusterUnreachable(SheepError):
    """No gateway could be reached, or none answered in time."""


class ConnectionLost(ClusterUnreachable):
    """The connection ended before the answer came; the request may have been executed."""


class OutcomeUnknown(SheepError):
    """The connection was lost in the middle of a request that must not be sent twice.

    It may or may not have been executed; look before you try again.
    """


class Closed(SheepError):
    """The cluster or VDI object was closed by its owner."""


_CLASSES = {
    Result.NO_OBJ: NoSuchObject,
    Result.EIO: InputOutputError,
    Result.VDI_EXIST: VdiExists,
    Result.INVALID_PARMS: InvalidParameters,
    Result.VDI_LOCKED: VdiLocked,
    Result.NO_VDI: NoSuchVdi,
    Result.NO_BASE_VDI: NoSuchVdi,
    Result.VDI_READ: InputOutputError,
    Result.VDI_WRITE: InputOutputError,
    Result.BASE_VDI_READ: InputOutputError,
    Result.BASE_VDI_WRITE: InputOutputError,
    Result.NO_TAG: NoSuchTag,
    Result.STARTUP: Busy,
    Result.SHUTDOWN: ShuttingDown,
    Result.FULL_VDI: NoFreeVdiId,
    Result.VER_MISMATCH: VersionMismatch,
    Result.NO_SPACE: NoSpace,
    Result.WAIT_FOR_FORMAT: NotFormatted,
    Result.WAIT_FOR_JOIN: WaitingForNodes,
    Result.HALT: Halted,
    Result.READONLY: ReadOnly,
    Result.INODE_INVALIDATED: Busy,
    Result.NOT_FORMATTED: NotFormatted,
    Result.NO_SUPPORT: NotSupported,
    Result.KILLED: ShuttingDown,
    Result.AGAIN: Busy,
    Result.COLLECTING_CINFO: Busy,
    Result.NOT_AUTHENTICATED: AuthenticationFailed,
}


def error_for(result: int, what: str, cls=None) -> SheepError:
    """The error for a result code other than SUCCESS; ``what`` says what was tried.

    ``cls`` is raised instead of the code's usual class.
    """
    if cls is None:
        cls = _CLASSES.get(result, SheepError)
    return cls("%s: %s" % (what, describe(result)), result)
