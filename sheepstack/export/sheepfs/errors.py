"""From what goes wrong in the cluster to what a system call says."""

import contextlib
import errno
import logging

from sheepstack.client import (
    AuthenticationFailed, NoSpace, NoSuchTag, NoSuchVdi, NotSupported, ReadOnly, SheepError,
    VdiLocked)

log = logging.getLogger(__name__)

#: What a request to mount or to unmount fails with.
MOUNTING = (
    (NoSuchVdi, errno.ENOENT),
    (NoSuchTag, errno.ENOENT),
    (VdiLocked, errno.EBUSY),
    (AuthenticationFailed, errno.EACCES),
    (NotSupported, errno.EOPNOTSUPP),
)
#: What reading, writing and their like fail with.
USING = (
    (NoSpace, errno.ENOSPC),
    (ReadOnly, errno.EROFS),
)


@contextlib.contextmanager
def as_os_errors(what: str, numbers: tuple = USING):
    """Turn what the client library raises into OSError, and log why ``what`` failed.

    ``numbers``: pairs of classes and error numbers; EIO stands for all else.
    """
    try:
        yield
    except SheepError as error:
        log.error("cannot %s: %s", what, error)
        number = next((number for kind, number in numbers if isinstance(error, kind)), errno.EIO)
        raise OSError(number, str(error)) from None
    except ValueError as error:
        log.warning("cannot %s: %s", what, error)
        raise OSError(errno.EINVAL, str(error)) from None
