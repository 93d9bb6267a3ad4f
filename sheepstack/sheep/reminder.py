"""Telling the operator of what lasts: not at once, and not too often."""

_SECONDS = 20.0


class Reminder:
    """``now``: when what lasts began, by the monotonic clock, in seconds."""

    def __init__(self, now):
        self._told = now

    def is_due(self, now) -> bool:
        """True where it is time to say it, once more; that is taken as said."""
        if now - self._told <= _SECONDS:
            return False
        self._told = now
        return True
