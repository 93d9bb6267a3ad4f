"""The client's errors in Cinder's words."""

import functools

from cinder import exception

from sheepstack import client
from sheepstack.export.iscsi import IscsiError


def translated(method):
    """Decorate a driver's method: SheepError, IscsiError and ValueError come out of it as
    VolumeIsBusy or VolumeBackendAPIException."""
    @functools.wraps(method)
    def call(*args, **keywords):
        try:
            return method(*args, **keywords)
        except client.VdiLocked as error:
            raise exception.VolumeIsBusy(message=str(error)) from error
        except (client.SheepError, IscsiError, ValueError) as error:
            raise exception.VolumeBackendAPIException(
                data="%s: %s" % (method.__name__, error)) from error
    return call
