"""The option ``-c``: how many copies, or how many strips."""

from sheepstack.dog.exits import Failure
from sheepstack.redundancy import policy

#: What ``alter-copy`` sets where nobody says how many, and what a cluster begins with.
DEFAULT_COPIES = 3


def parse_copies(text: str) -> policy.CopyPolicy:
    """``3`` or ``4:2``; raises :class:`Failure` with the reason for anything else."""
    try:
        return policy.parse(text)
    except ValueError as error:
        raise Failure("Invalid parameter %s: %s" % (text, error)) from None


def set_copies(settings, text: str) -> None:
    settings.copies = parse_copies(text)
