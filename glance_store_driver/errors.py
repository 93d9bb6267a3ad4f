"""The client's errors in the words of glance_store."""

import contextlib

from glance_store import exceptions

from sheepstack import client

#: The first line that fits counts.
_CLASSES = (
    ((client.NoSuchVdi, client.NoSuchTag), exceptions.NotFound),
    ((client.VdiExists,), exceptions.Duplicate),
    ((client.NoSpace, client.NoFreeVdiId), exceptions.StorageFull),
    ((client.AuthenticationFailed, client.NotFormatted, client.VersionMismatch),
     exceptions.BadStoreConfiguration),
    ((client.ClusterUnreachable, client.Halted, client.WaitingForNodes, client.ShuttingDown,
      client.Busy, client.OutcomeUnknown, client.VdiLocked, client.Closed),
     exceptions.RemoteServiceUnavailable),
    ((client.SheepError,), exceptions.GlanceStoreException),
)


@contextlib.contextmanager
def translated(what: str):
    """Raise glance_store's exception for a :class:`SheepError`; ``what`` was being done."""
    try:
        yield
    except client.SheepError as error:
        raise _class_for(error)(message="Cannot %s: %s" % (what, error)) from error


def _class_for(error):
    return next(theirs for ours, theirs in _CLASSES if isinstance(error, ours))
