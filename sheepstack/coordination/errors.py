"""What can go wrong between a process and its coordination service."""


class CoordinationError(Exception):
    """Base of what this package raises; its text is one line for an operator."""


class BadSpec(CoordinationError, ValueError):
    """The words that name the coordination service make no sense."""


class Unreachable(CoordinationError):
    """The service did not answer while a session was being opened."""


class SessionLost(CoordinationError):
    """The session is over: what it published and locked is gone, or soon will be.

    The coordinator that raised it is of no more use; the way on is a new one.  A change that
    was under way when the session ended may have been made or not.
    """
