"""``dog vdi setattr`` and ``getattr``: keys and values kept beside a VDI."""

import sys

from sheepstack.client import AttributeExists, NoSuchAttribute, SheepError
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.session import reason
from sheepstack.wire.inode_layout import ATTR_VALUE_LEN
from sheepstack.wire.results import Result

NO_KEY = "Please specify the attribute key"


def set_attribute(context: Context) -> None:
    name, key = context.take(""), context.take(NO_KEY)
    session, settings = context.session, context.settings
    try:
        if settings.delete:
            session.ask("delattr", name, key)
        else:
            session.ask("setattr", name, key, _value(context), exclusive=settings.exclusive)
    except AttributeExists:
        raise Failure("The attribute '%s' already exists" % key, code=Exit.EXISTS) from None
    except SheepError as error:
        raise _explained(error, key, "Failed to set attribute") from None


def get_attribute(context: Context) -> None:
    name, key = context.take(""), context.take(NO_KEY)
    try:
        value = context.session.ask("getattr", name, key)
    except SheepError as error:
        raise _explained(error, key, "Failed to read attribute") from None
    sys.stdout.flush()
    sys.stdout.buffer.write(value)


def _value(context):
    """From the command line or else from standard input."""
    text = context.take_if_any()
    if text is not None:
        value = text.encode("utf-8", "surrogateescape")
    else:
        value = sys.stdin.buffer.read(ATTR_VALUE_LEN + 1)
    if len(value) > ATTR_VALUE_LEN:
        raise Failure("An attribute's value has at most %d bytes" % ATTR_VALUE_LEN)
    return value


def _explained(error, key, what):
    if isinstance(error, NoSuchAttribute):
        return Failure("Attribute '%s' not found" % key, code=Exit.MISSING)
    if error.result == Result.NO_VDI:
        return Failure("VDI not found", code=Exit.MISSING)
    return Failure("%s: %s" % (what, reason(error)))
