"""Exit codes, and the exceptions by which a command ends with one."""

import enum


class Exit(enum.IntEnum):
    """What the shell sees; numbers are Sheepdog's."""

    SUCCESS = 0
    #: The command could not be carried out.
    FAILURE = 1
    #: Something is wrong with the cluster or with this host.
    SYSFAIL = 2
    #: What was to be created exists.
    EXISTS = 3
    #: No space left in the cluster.
    FULL = 4
    #: What was named does not exist.
    MISSING = 5
    #: Wrong command, arguments or options.
    USAGE = 64
    INTERRUPTED = 130
    #: Nobody reads what is written.
    BROKEN_PIPE = 141
    #: Setting or reading a number of a node failed.
    NODE_SETTING = 255


class Failure(Exception):
    """Ends the command: ``lines`` go to standard error, ``code`` to the shell."""

    def __init__(self, *lines: str, code: Exit = Exit.FAILURE):
        super().__init__(*lines)
        self.lines = lines
        self.code = code


class UsageError(Failure):
    """A command was given what it cannot use: its usage follows on standard output."""

    def __init__(self, *lines: str, code: Exit = Exit.USAGE):
        super().__init__(*lines, code=code)


class Declined(Exception):
    """The administrator did not confirm; nothing was done."""
