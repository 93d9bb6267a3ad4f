"""What can go wrong between us and tgtd."""


class IscsiError(Exception):
    """Base of all errors of this package."""


class BadTarget(IscsiError, ValueError):
    """A name, address or secret that iSCSI or tgt cannot take."""


class TargetConflict(IscsiError):
    """A target of that name, or an account of that user, is there and is another one."""


class TargetBusy(IscsiError):
    """Commands of an initiator are still under way."""


class TgtdFailed(IscsiError):
    """tgtd refused what was asked of it; ``reason`` is its own word."""

    def __init__(self, message, reason=""):
        super().__init__(message)
        self.reason = reason


class TgtdUnreachable(IscsiError):
    """No tgtd answers, or its tools are not installed."""
