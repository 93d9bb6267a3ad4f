"""The text of dog's listings."""

import errno
import logging
from typing import NamedTuple

from sheepstack.dog.command import Context
from sheepstack.dog.exits import Failure
from sheepstack.dog.session import Session
from sheepstack.export.sheepfs.errors import as_os_errors
from sheepstack.wire.errors import WireError

log = logging.getLogger(__name__)


class DogText(NamedTuple):
    """Asks the cluster as dog does; see :class:`~sheepstack.dog.session.Session`."""

    gateways: list
    auth_key: bytes | None
    timeout: float

    def of(self, group, lines) -> bytes:
        """What a command of ``group`` prints, whose lines are ``lines(context)``.

        Raises OSError.
        """
        context = Context(
            group.settings(), [], Session(self.gateways, self.auth_key, self.timeout))
        try:
            with as_os_errors("ask the cluster"):
                text = "".join(line + "\n" for line in lines(context))
        except (Failure, WireError) as error:
            log.error("cannot ask the cluster: %s", error)
            raise OSError(errno.EIO, str(error)) from None
        finally:
            context.close()
        return text.encode("utf-8", "surrogateescape")
