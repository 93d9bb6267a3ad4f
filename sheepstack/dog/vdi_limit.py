"""``dog vdi limit``: how fast iSCSI may use an image."""

from sheepstack.client import SheepError, parse_limits
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Exit, Failure, UsageError
from sheepstack.dog.session import reason
from sheepstack.wire.results import Result

OFF = "off"


def limit(context: Context) -> None:
    """Without limits show those that there are; ``off`` ends them all."""
    name, words = context.take(""), []
    while (word := context.take_if_any()) is not None:
        words.append(word)
    try:
        if not words:
            found = context.session.ask("limits", name)
            if any(found):
                print(found)
            return
        try:
            wanted = parse_limits("" if words == [OFF] else " ".join(words))
        except ValueError as error:
            raise UsageError(str(error)) from None
        context.session.ask("set_limits", name, wanted)
    except SheepError as error:
        if error.result == Result.NO_VDI:
            raise Failure("VDI not found", code=Exit.MISSING) from None
        raise Failure("Failed to limit %s: %s" % (name, reason(error))) from None
