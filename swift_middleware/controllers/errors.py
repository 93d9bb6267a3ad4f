"""Answers to what goes wrong below the controllers."""

import functools

from swift.common.swob import HTTPServiceUnavailable

from swift_middleware.database import ledger
from swift_middleware.storage.store import TRANSIENT


def answers_503(method):
    """Let a controller's method answer 503 where cluster or database cannot be had now."""
    @functools.wraps(method)
    def wrapped(controller, req, *args, **kwargs):
        try:
            return method(controller, req, *args, **kwargs)
        except (*TRANSIENT, ledger.Changed) as error:
            controller.app.logger.error("cannot serve %s %s: %s", req.method, req.path, error)
            return HTTPServiceUnavailable(request=req)
    return wrapped


def retried(limit, errors):
    """Let a function be called again, ``limit`` times in all, after any of ``errors``."""
    def decorate(function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            for _ in range(limit - 1):
                try:
                    return function(*args, **kwargs)
                except errors:
                    continue
            return function(*args, **kwargs)
        return wrapped
    return decorate
