"""Entry point of the ``sheep`` command."""

import sys


def main(arguments=None) -> int:
    """Run a sheep; returns the exit status."""
    from sheepstack.sheep import options

    try:
        chosen = options.parse(sys.argv[1:] if arguments is None else arguments)
    except options.OptionError as error:
        print("sheep: %s" % error, file=sys.stderr)
        return 1
    from sheepstack.sheep import background

    # Forked before the runtime is chosen: neither threads nor an event loop survive a fork.
    report = background.Foreground() if chosen.foreground else background.detach()

    # Before all that it replaces the foundations of is imported.
    from sheepstack import runtime
    runtime.choose(chosen.runtime)

    from sheepstack.sheep import process
    return process.run(chosen, report)


if __name__ == "__main__":
    sys.exit(main())
