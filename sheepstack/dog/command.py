"""What a command is, and what it is given when it runs."""

import sys
from types import SimpleNamespace
from typing import Callable, Iterator, NamedTuple

from sheepstack.dog import output
from sheepstack.dog.exits import Declined, Failure, UsageError
from sheepstack.dog.session import Session

CONFIRM = "Are you sure you want to continue?"


class Command(NamedTuple):
    """A word behind ``dog vdi`` and the like, or behind another command.

    ``options`` are the letters of the options it takes, in the order of its usage line.
    ``needs_argument``: without one it shows its usage.  ``run(context)`` does the work and
    returns an exit code or None; a command that only has ``subcommands`` has none.
    """

    name: str
    description: str
    run: Callable | None = None
    options: str = ""
    arguments: str = ""
    needs_argument: bool = False
    subcommands: tuple = ()


def printing(lines: Callable[["Context"], Iterator[str]]) -> Callable[["Context"], None]:
    """The ``run`` of a command that prints what ``lines(context)`` yields, and no more.

    Whoever wants the text of such a command without a terminal calls ``lines`` itself.
    """
    def run(context):
        for line in lines(context):
            print(line)
    return run


class Group(NamedTuple):
    """The first word: ``vdi``, ``node`` or ``cluster``.

    ``options`` are those that its commands have beside the shared ones, ``settings`` is the
    class that holds what they say.  ``missing`` maps those of Sheepdog's commands that do
    not exist here to what to do instead.
    """

    name: str
    commands: tuple
    options: tuple
    settings: type
    missing: dict = {}


class Context:
    """One run of a command: its options (``settings``), arguments and cluster.

    ``session``: where there is a connection to the cluster already.
    """

    def __init__(self, settings: SimpleNamespace, arguments: list,
                 session: Session | None = None):
        self.settings = settings
        self.arguments = arguments
        self._session = session

    @property
    def session(self) -> Session:
        """The connection to the cluster, made when it is first asked for."""
        if self._session is None:
            self._session = Session(self.settings.gateway, self.settings.auth_key())
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    @property
    def raw(self) -> bool:
        return self.settings.raw

    @property
    def verbose(self) -> bool:
        return self.settings.verbose

    def take(self, complaint: str) -> str:
        """The next argument; raises :class:`UsageError` with ``complaint`` without one."""
        if not self.arguments:
            raise UsageError(complaint)
        return self.arguments.pop(0)

    def take_if_any(self) -> str | None:
        return self.arguments.pop(0) if self.arguments else None

    def size(self, number: int) -> str:
        return output.size(number, self.raw)

    def headings(self, *texts: str) -> tuple:
        """Lines that raw output goes without."""
        return () if self.raw else texts

    def heading(self, text: str) -> None:
        """A line that raw output goes without."""
        if not self.raw:
            print(text)

    def confirm(self, *lines: str) -> None:
        """Ask on the terminal; raises :class:`Declined` for anything but yes.

        Raises :class:`Failure` where there is nobody to answer: a script shall notice.
        """
        print(*lines, sep="\n", end=" [yes/no]: ", flush=True)
        answer = sys.stdin.readline()
        if not answer:
            print()
            raise Failure("Nobody confirmed it: nothing was done")
        if not answer.lower().startswith("yes"):
            raise Declined()
