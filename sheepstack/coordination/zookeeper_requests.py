"""Requests to ZooKeeper on behalf of one session, and of no other.

- *The answer to a change was lost.*  The change was made or not: :class:`Unsure`.  By the time
  that is raised there is a connection again, and the caller can look what became of it.  What
  it sees may yet be old: a leader that was deposed, and has not noticed, answers a sync too.
  So a change that must not be made twice takes a turn, see :meth:`Requests.change`.
- *The session expired, and kazoo began another one by itself.*  A change that slips into that
  one is refused, because each is a transaction that checks the fence: a znode which goes with
  the session that the change was meant for.
- *A server that is behind the others.*  A read follows a sync in the same bundle where its
  outcome matters.
"""

import contextlib
import threading
import time

from kazoo.exceptions import (BadVersionError, ConnectionLoss, KazooException, NodeExistsError,
                              NoNodeError, OperationTimeoutError, RolledBackError,
                              RuntimeInconsistency, SessionExpiredError, SessionMovedError)

from sheepstack.coordination.errors import CoordinationError

#: Seconds between two looks at whether the session for which an answer is awaited still lives.
_GLANCE = 0.2
#: ZooKeeper's RequestTimeout and ThrottledOp, for which older versions of kazoo have no name:
#: the service asks for less haste.
_HASTE = (-122, -127)
#: Seconds before another attempt then.
_BREATH = 0.05


class Unsure(Exception):
    """Whether the change was made is not known."""


class Rejected(Exception):
    """The operation number ``index`` of a transaction failed, and so nothing was done.

    ``error`` is NoNodeError, NodeExistsError or BadVersionError.  Number -1: an earlier change
    had this turn.
    """

    def __init__(self, index, error):
        super().__init__(index, error)
        self.index = index
        self.error = error


class Requests:
    """``service``: what error messages call it.  ``check()`` raises where there is no session
    any more; ``lose()`` is called where it turns out to be over."""

    def __init__(self, client, service: str, check, lose):
        self._client = client
        self._service = service
        self._check = check
        self._lose = lose
        #: To be set as long as there is a connection.
        self.connected = threading.Event()
        self._fence = None
        #: How many changes took a turn: the data version of the fence.
        self._turn = 0

    # Each begins a request, or returns a function that does.

    def sync(self, path):
        return lambda: self._client.sync_async(path)

    def children(self, path, watch=None):
        """Results in ``(names, stat)``."""
        return lambda: self._client.get_children_async(path, watch=watch, include_data=True)

    def get(self, path):
        """Results in ``(data, stat)``."""
        return lambda: self._client.get_async(path)

    def exists(self, path, watch=None):
        """Results in a stat or None."""
        return lambda: self._client.exists_async(path, watch=watch)

    def ensure(self, path):
        return lambda: self._client.ensure_path_async(path)

    # Each returns results, or raises what check() raises, or CoordinationError.

    def read(self, *requests):
        """List of the results of reads that are sent together; None: no such znode."""
        def result(answer):
            with contextlib.suppress(NoNodeError):
                return self._result(answer)

        while True:
            with contextlib.suppress(Unsure):
                return [result(answer) for answer in self._answers(requests)]

    def make(self, *paths):
        """Make znodes that stay, where they are missing."""
        while True:
            with contextlib.suppress(Unsure):
                for answer in self._answers([self.ensure(path) for path in paths]):
                    self._result(answer)
                return

    def make_fence(self, path):
        """Make the znode whose presence :meth:`change` checks from now on."""
        self._fence = path
        while True:
            # It exists: from an attempt whose answer was lost.
            with contextlib.suppress(Unsure, NodeExistsError):
                self._result(self._answers(
                    [lambda: self._client.create_async(path, ephemeral=True)])[0])
            if self.read(self.exists(path))[0]:
                return

    def change(self, *operations, turn: bool = False):
        """List of the results of operations that are carried out together or not at all.

        Each is a function that adds to kazoo's transaction.  Raises Rejected, Unsure.

        With ``turn`` it is counted: should it be made late, it is the next one with a turn that
        is rejected.  To be called by one thread at a time.  After Unsure and Rejected call
        :meth:`look_at_turn`.
        """
        transaction = self._client.transaction()
        if turn:
            transaction.set_data(self._fence, b"", self._turn)
        else:
            transaction.check(self._fence, -1)
        for operation in operations:
            operation(transaction)
        [answer] = self._answers([transaction.commit_async])
        results = self._result(answer)
        for index, result in enumerate(results):
            if (isinstance(result, Exception)
                    and not isinstance(result, (RolledBackError, RuntimeInconsistency))):
                if index == 0 and isinstance(result, NoNodeError):
                    self._lose()
                    self._check()
                if not isinstance(result, (NoNodeError, NodeExistsError, BadVersionError)):
                    raise self._refused(result)
                raise Rejected(index - 1, result)
        if turn:
            self._turn = results[0].version
        return results[1:]

    def look_at_turn(self, *requests):
        """Results of reads, which see at least what was done when the last turn was taken."""
        # In this order: were the turn read last, it might count a change that was not seen.
        fence, *results = self.read(self.sync(self._fence), self.exists(self._fence),
                                    *requests)[1:]
        if fence is None:
            self._lose()
            self._check()
        self._turn = fence.version
        return results

    def _answers(self, requests):
        self._check()
        answers = [begin() for begin in requests]
        for answer in answers:
            while not answer.wait(_GLANCE):
                self._check()
        # What came when the session was over may come from the one that kazoo began then.
        self._check()
        return answers

    def _result(self, answer):
        try:
            return answer.get()
        except (NoNodeError, NodeExistsError):
            raise
        except (ConnectionLoss, OperationTimeoutError, SessionMovedError) as error:
            while not self.connected.wait(_GLANCE):
                self._check()
            raise Unsure from error
        except SessionExpiredError as error:
            self._lose()
            self._check()
            raise Unsure from error
        except KazooException as error:
            if getattr(error, "code", None) not in _HASTE:
                raise self._refused(error) from error
            # There is nothing to wait for but time.
            time.sleep(_BREATH)
            raise Unsure from error

    def _refused(self, error):
        return CoordinationError("%s refused: %s"
                                 % (self._service, str(error) or type(error).__name__))
