"""Help texts, made from the tables of commands and options."""

from sheepstack.dog.options import PROGRAM


def overview(groups) -> str:
    """All commands of all groups."""
    lines = ["dog, the administrator of a Sheepdog cluster (sheepstack %s)" % _version(),
             "Usage: %s <command> <subcommand> [options]" % PROGRAM, "", "Available commands:"]
    for group in groups:
        for command in group.commands:
            lines.append(_entry("%s %s" % (group.name, command.name), command.description))
    lines += ["", "'%s <command> <subcommand> --help' tells more about one of them." % PROGRAM]
    return "\n".join(lines)


def commands_of(group) -> list:
    """The lines that name the commands of one group."""
    return ["Available %s commands:" % group.name] + [
        "  %s %s" % (group.name, command.name) for command in group.commands]


def of_command(group, path, options) -> str:
    """Usage of the command that the words of ``path`` (a list of commands) lead to."""
    command = path[-1]
    words = [PROGRAM, group.name] + [step.name for step in path]
    names = [sub.name for sub in command.subcommands]
    if len(names) == 1:
        words += names
    elif names:
        words.append("{%s}" % "|".join(names))
    words += [option.synopsis for option in options]
    arguments = next((step.arguments for step in reversed(path) if step.arguments), "")
    if arguments:
        words.append(arguments)
    lines = ["Usage: " + " ".join(words)]
    if names:
        lines.append("Available subcommands:")
        lines += [_entry(sub.name, sub.description) for sub in command.subcommands]
    lines.append("Options:")
    for option in options:
        name = "--" + option.name
        lines.append(_entry("-%s, %s" % (option.letter, name) if option.letter else name,
                            option.description))
    return "\n".join(lines)


def _entry(name, description):
    return "  %-23s %s" % (name, description)


def _version():
    # Slow to import, and only one help text needs it.
    from importlib import metadata

    try:
        return metadata.version("sheepstack")
    except metadata.PackageNotFoundError:
        return "unreleased"
