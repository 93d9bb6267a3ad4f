"""Options as ``getopt_long(3)`` reads them: ``-s tag``, ``-stag``, ``--snapshot=tag``.

Options and arguments may come in any order, a long option may be shortened as long as it
stays unique, and what follows ``--`` is no option.
"""

import getopt
from typing import Callable, NamedTuple

from sheepstack.dog.exits import Failure, UsageError

PROGRAM = "dog"


class BadOption(UsageError):
    """An option that the command does not have, or that lacks its value."""


class Option(NamedTuple):
    """``apply(settings, value)`` stores the option; ``value`` is "" where it takes none.

    ``letter`` is empty for an option that has only a long name.
    """

    letter: str
    name: str
    takes_value: bool
    description: str
    apply: Callable

    @property
    def synopsis(self) -> str:
        """``[-s snapshot]``, as a usage line shows it."""
        flag = "-" + self.letter if self.letter else "--" + self.name
        if self.takes_value:
            return "[%s %s]" % (flag, self.name if self.letter else "FILE")
        return "[%s]" % flag


def flag(letter: str, name: str, description: str, field: str) -> Option:
    """An option without a value that sets ``field`` to True."""
    return Option(letter, name, False, description,
                  lambda settings, _: setattr(settings, field, True))


def parse(options, argv, settings) -> list:
    """Apply the options in ``argv`` to ``settings``; returns the arguments between them.

    Raises :class:`BadOption` for an option that is not among ``options``.
    """
    short = "".join(o.letter + (":" if o.takes_value else "") for o in options if o.letter)
    long = [o.name + ("=" if o.takes_value else "") for o in options]
    try:
        pairs, arguments = getopt.gnu_getopt(argv, short, long)
    except getopt.GetoptError as error:
        is_long = any(word.partition("=")[0] == "--" + error.opt for word in argv)
        raise BadOption((_long_complaint if is_long else _letter_complaint)(
            options, error.opt)) from None
    by_flag = {"-" + o.letter: o for o in options if o.letter}
    by_flag.update({"--" + o.name: o for o in options})
    for given, value in pairs:
        by_flag[given].apply(settings, value)
    return arguments


def _letter_complaint(options, letter):
    if any(option.letter == letter for option in options):
        return "%s: option requires an argument -- '%s'" % (PROGRAM, letter)
    return "%s: invalid option -- '%s'" % (PROGRAM, letter)


def _long_complaint(options, name):
    matches = [option for option in options if option.name.startswith(name)]
    matches = [option for option in matches if option.name == name] or matches
    if not matches:
        return "%s: unrecognized option '--%s'" % (PROGRAM, name)
    if len(matches) > 1:
        return "%s: option '--%s' is ambiguous; possibilities: %s" % (
            PROGRAM, name, " ".join("'--%s'" % option.name for option in matches))
    if matches[0].takes_value:
        return "%s: option '--%s' requires an argument" % (PROGRAM, matches[0].name)
    return "%s: option '--%s' doesn't allow an argument" % (PROGRAM, matches[0].name)


def positive_number(what: str, text: str) -> int:
    """A whole number above 0; raises :class:`Failure` naming ``what`` otherwise."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Failure("%s is invalid: %s" % (what, text))
    return int(text)
