"""What every coordination driver gives, and no more."""

import abc
import enum
from typing import Callable, Dict, List, Optional, Tuple

#: Bytes: the most that a map, a member's entry or the owner of a lock may have.  A change of
#: the map stores it twice in one ZooKeeper request, and those end at 1 MiB.
MAX_VALUE = 480 * 1024


class SessionState(enum.Enum):
    """How things stand between this process and the coordination service.

    What may be assumed in each is all that a caller has to know.
    """

    #: The session lives.  What was published and locked stands, and nobody else leads or
    #: holds what this session leads or holds.
    CONNECTED = "connected"
    #: The service is out of reach, or has not answered for too long, or the session was not
    #: opened yet.  What was published and locked may stand or not: rely on none of it, serve
    #: nothing, wait.  Calls block until it becomes CONNECTED or LOST.
    SUSPENDED = "suspended"
    #: The session is over, for good: others see this process as gone, its locks are or will
    #: be taken by others, and all calls raise SessionLost.  Also the state after ``close()``.
    #: The way back is a new coordinator.
    LOST = "lost"


class Event(enum.Enum):
    """Something changed; what it is now has to be read.  Several changes may make one event."""

    MEMBERS = "members"
    MAP = "map"
    LEADER = "leader"
    STATE = "state"


class Coordinator(abc.ABC):
    """One session with a coordination service.

    Thread-safe.  All methods save ``state``, ``lease_valid``, ``is_leader`` and ``leader``
    may block for as long as the session is SUSPENDED, which is at most ``session_timeout``,
    and then raise :class:`~sheepstack.coordination.errors.SessionLost`.  All may raise
    :class:`~sheepstack.coordination.errors.CoordinationError`.
    """

    #: Seconds until the service gives up a session that it does not hear from.  What was
    #: asked for until ``open()`` returned, and then what the service grants.
    session_timeout: float

    @abc.abstractmethod
    def open(self, on_event: Callable[[Event], None]) -> None:
        """Start the session, which then is CONNECTED; once in the life of a coordinator.

        ``on_event`` is called from one thread, one call at a time.  It may call any method of
        the coordinator; while it runs no other event is delivered.  The first is STATE; the
        others follow for what is there already.

        Raises :class:`~sheepstack.coordination.errors.Unreachable` where the service does not
        answer.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the session at once: others see this process gone without waiting for a timeout.

        No event is delivered any more.  Does nothing when called again.
        """

    @property
    @abc.abstractmethod
    def state(self) -> SessionState:
        """Never blocks, never raises."""

    @abc.abstractmethod
    def lease_valid(self) -> bool:
        """Whether the service can not have given this session up yet.  Costs next to nothing.

        True implies CONNECTED.  This is the one question to ask before serving a request: it
        is false from the moment that a connection is known to be lost, and also in a process
        that was stopped, or starved, for too long and knows of nothing yet.
        """

    @abc.abstractmethod
    def watch_lease(self, tell: Callable[[float], None]) -> None:
        """Call ``tell(until)`` now and whenever the lease changes: :meth:`lease_valid` is true
        until then, in seconds of CLOCK_BOOTTIME.  ``tell`` must neither wait nor ask.
        """

    @property
    @abc.abstractmethod
    def session_id(self) -> str:
        """Never the same for two sessions; set by ``open()``."""

    @abc.abstractmethod
    def publish(self, entry: bytes) -> None:
        """Become a member with this entry, or replace the entry and keep the place in line."""

    @abc.abstractmethod
    def withdraw(self) -> None:
        """Be no member any more; locks stay.  Does nothing for who is none."""

    @abc.abstractmethod
    def members(self) -> Dict[str, bytes]:
        """Entries of live sessions by session id, in the order of succession."""

    @abc.abstractmethod
    def read_map(self) -> Tuple[Optional[bytes], int]:
        """The latest map and its version; ``(None, -1)`` while there is none."""

    @abc.abstractmethod
    def replace_map(self, data: bytes, version: int, epoch: int) -> Optional[int]:
        """Make ``data`` the map, if ``version`` still is the current one (-1: there is none).

        In the same step ``data`` becomes the record of ``epoch``, in place of an earlier one.
        Returns the new version, None where somebody else was first.
        """

    @abc.abstractmethod
    def history(self, epoch: int) -> Optional[bytes]:
        """The last map that was stored for ``epoch``."""

    @abc.abstractmethod
    def epochs(self) -> List[int]:
        """Epochs that have a record, ascending."""

    @abc.abstractmethod
    def is_leader(self) -> bool:
        """Whether this session leads: it is the earliest published of those that live.

        By the latest knowledge of this process, and only while :meth:`lease_valid`.  So it
        may be false for a moment in a session that leads already, and is never true in two.
        """

    @abc.abstractmethod
    def leader(self) -> Optional[str]:
        """Session id of who leads by the latest knowledge of this process, lease or not."""

    @abc.abstractmethod
    def resign(self) -> None:
        """Go to the end of the line; alone in it one leads again.  Nothing for a non-member."""

    @abc.abstractmethod
    def acquire(self, name: str, owner: bytes, shared: bool = False) -> bool:
        """Take a lock without waiting for it; whether this session has it now.

        An exclusive lock excludes everybody else's, shared ones exclude exclusive ones.  Who
        has it already in the same mode keeps it, with the first ``owner``: two users of one
        session are not told apart here.  It is not converted: in the other mode False.
        """

    @abc.abstractmethod
    def release(self, name: str) -> bool:
        """Whether this session had it."""

    @abc.abstractmethod
    def holders(self, name: str) -> List[Tuple[str, bytes, bool]]:
        """``(session id, owner, shared)`` of each, in the order in which they took it."""

    @abc.abstractmethod
    def locks(self) -> List[str]:
        """Names of the locks that somebody holds, sorted."""
