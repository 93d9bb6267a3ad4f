"""From words on the command line to a command, and from what it did to an exit code."""

import os
import sys
import time

from sheepstack.client import SheepError
from sheepstack.dog import cluster, node, options, output, usage, vdi
from sheepstack.dog.command import Context
from sheepstack.dog.common_options import COMMON_OPTIONS, KEY_FILE_OPTION
from sheepstack.dog.exits import Declined, Exit, Failure, UsageError
from sheepstack.dog.options import PROGRAM, BadOption
from sheepstack.dog.session import code_of
from sheepstack.wire.errors import WireError

GROUPS = (vdi.GROUP, node.GROUP, cluster.GROUP)

HELP_WORDS = ("help", "--help", "-h")

#: Words of Sheepdog's dog that stand for nothing here.
MISSING_GROUPS = {
    "upgrade": "stores of older Sheepdog versions are not read by sheepstack",
    "benchmark": "use the benchmarks that come with sheepstack",
    "nfs": "export VDIs with the NFS face of sheepstack",
    "trace": "sheep cannot be traced",
}


def main(argv=None) -> int:
    """Run ``argv`` (without the program's name); returns the exit code."""
    if argv is None:
        argv = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        # Names are bytes that are UTF-8 or not: they go out as they came in.
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        code = _guarded(list(argv))
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.BROKEN_PIPE)


def _guarded(argv):
    try:
        return _dispatch(argv)
    except Failure as failure:
        output.complain(*failure.lines)
        return failure.code
    except SheepError as error:
        output.complain(str(error))
        return code_of(error)
    except WireError as error:
        output.complain(str(error))
        return Exit.FAILURE
    except BrokenPipeError:
        raise
    except OSError as error:
        output.complain(str(error))
        return Exit.SYSFAIL
    except Declined:
        return Exit.SUCCESS
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _dispatch(argv):
    if not argv or argv[0] in HELP_WORDS:
        print(usage.overview(GROUPS))
        return Exit.SUCCESS
    word = argv[0]
    group = next((each for each in GROUPS if each.name == word), None)
    if group is None:
        if word in MISSING_GROUPS:
            raise Failure("'%s %s' is not supported: %s" % (PROGRAM, word, MISSING_GROUPS[word]))
        raise Failure("Invalid command '%s'" % word,
                      "Try '%s --help' for more information." % PROGRAM, code=Exit.USAGE)
    word = argv[1] if len(argv) > 1 else None
    command = next((each for each in group.commands if each.name == word), None)
    if command is None:
        if word in group.missing:
            raise Failure("'%s %s %s' is not supported: %s"
                          % (PROGRAM, group.name, word, group.missing[word]))
        complaint = [] if word is None or word in HELP_WORDS else [
            "Invalid command '%s %s'" % (group.name, word)]
        raise Failure(*complaint, *usage.commands_of(group), code=Exit.USAGE)
    return _run(group, command, argv[2:])


def _run(group, command, argv):
    started = time.monotonic()
    table = {option.letter: option for option in COMMON_OPTIONS + group.options}
    known = [table[letter] for letter in command.options] + [KEY_FILE_OPTION]
    settings = group.settings()
    settings.read_environment()
    try:
        arguments = options.parse(known, argv, settings)
    except BadOption as error:
        raise Failure(*error.lines, "Try '%s --help' for more information." % PROGRAM,
                      code=Exit.USAGE) from None
    path = [command]
    context = Context(settings, arguments)
    try:
        _descend(path, arguments)
        if settings.help:
            print(usage.of_command(group, path, known))
            return Exit.SUCCESS
        if path[-1].run is None or (path[-1].needs_argument and not arguments):
            raise UsageError()
        code = path[-1].run(context)
    except UsageError as error:
        output.complain(*error.lines)
        print(usage.of_command(group, path, known))
        return error.code
    finally:
        context.close()
    if settings.time:
        print("\nElapsed time: %.3f seconds" % (time.monotonic() - started))
    return code or Exit.SUCCESS


def _descend(path, arguments):
    """Follow the words of subcommands as far as they lead."""
    while path[-1].subcommands and arguments:
        word = arguments.pop(0)
        for sub in path[-1].subcommands:
            if sub.name == word:
                path.append(sub)
                break
        else:
            raise UsageError("Invalid subcommand '%s'" % word, code=Exit.FAILURE)
