"""Reading objects that are in strips.

A range is read from the data strips that it lies in.  Where one of them is not to be had, the
rows around the range are read from as many other strips as the code needs, all of one version,
and what is missing is computed.
"""

import logging
import threading

from sheepstack.redundancy.erasure import TRAILER_SIZE, Trailer, code_of
from sheepstack.sheep.replica import result_of, strip_trailer
from sheepstack.store.errors import NoObject, Rotten, StoreError
from sheepstack.wire import oid as oids
from sheepstack.wire.peer import PeerOp
from sheepstack.wire.results import Result

log = logging.getLogger(__name__)


class StripReader:
    """``recovery`` brings or rebuilds a strip that should be here and is not."""

    def __init__(self, state, store, replica, recovery, workers):
        self._state = state
        self._store = store
        self._replica = replica
        self._recovery = recovery
        self._workers = workers

    # -- for other sheep -------------------------------------------------------------------

    def answer(self, oid, revision, start, length, reply):
        """Answer READ_STRIP: the trailer of a strip that is here, and bytes of it."""
        try:
            data = self._read_here(oid, start, length)
        except (StoreError, ValueError):
            self._workers.submit(self._answer_slowly, oid, revision, start, length, reply)
        else:
            reply(Result.SUCCESS, 0, (data,), len(data))

    def _answer_slowly(self, oid, revision, start, length, reply):
        result, data = self._read_patiently(oid, revision, start, length)
        if result == Result.SUCCESS:
            reply(result, 0, (data,), len(data))
        else:
            reply(result)

    def _read_here(self, oid, start, length):
        trailer = strip_trailer(self._store, oid)
        if start + length > self._store.size(oid) - TRAILER_SIZE:
            raise ValueError("a range outside of the strip")
        return b"".join((trailer.pack(), self._store.read(oid, start, length)))

    def _read_patiently(self, oid, revision, start, length):
        """(result, trailer and bytes); fetches or rebuilds the strip first where need be."""
        repaired = False
        while True:
            mismatch = self._replica.mismatch(revision)
            if mismatch:
                return mismatch, b""
            try:
                return Result.SUCCESS, self._read_here(oid, start, length)
            except NoObject:
                if not self._recovery.need(oid):
                    return Result.AGAIN, b""
                if not self._store.exists(oid):
                    return Result.NO_OBJ, b""
            except ValueError:
                return Result.INVALID_PARMS, b""
            except Rotten as error:
                log.error("strip %016x is damaged here: %s", oid, error)
                if repaired or not self._recovery.repair(oid, revision):
                    return Result.EIO, b""
                repaired = True
            except StoreError as error:
                log.error("cannot read strip %016x: %s", oid, error)
                return result_of(error), b""

    # -- for clients -----------------------------------------------------------------------

    def read(self, oid, offset, length, policy):
        """(result, bytes) of a range.

        NO_OBJ: the object is not in strips; AGAIN: not to be had just now.
        """
        result, _, data = self._read(oid, offset, max(length, 1), policy)
        return result, data[:length]

    def read_all(self, oid, policy):
        """(result, version, bytes) of the whole object."""
        result, head, _ = self._read(oid, 0, 1, policy)
        if result == Result.SUCCESS:
            result, head, data = self._read(oid, 0, head.size, policy)
        return (result, head.version, data) if result == Result.SUCCESS else (result, 0, b"")

    def _read(self, oid, offset, length, policy):
        """(result, trailer of some strip, bytes)."""
        view = self._state.wait_serving()
        if view is None:
            return Result.SHUTDOWN, None, b""
        code = code_of(policy)
        holders = view.ring.holders(oid, policy.width)
        spans = code.spans(offset, length)
        if len(holders) >= policy.data:
            answers = self._ask(view, oid, holders, spans)
            found = {position: answer for position, (_, answer) in answers.items() if answer}
            heads = {(head.version, head.size): head for head, _ in found.values()}
            if len(found) == len(spans) and len(heads) == 1:
                return _cut(code, offset, length, *heads.values(), {
                    position: (spans[position][0], data)
                    for position, (_, data) in found.items()})
        return self._read_degraded(view, oid, offset, length, code, holders)

    def _read_degraded(self, view, oid, offset, length, code, holders):
        start, stop = code.rows(offset, length)
        answers = self._ask(view, oid, holders, {
            position: (start, stop) for position in range(len(holders))})
        found = {position: answer for position, (_, answer) in answers.items() if answer}
        versions = {}
        for position, (head, _) in found.items():
            versions.setdefault((head.version, head.size), []).append(position)
        newest = max(versions, default=None)
        if newest is not None and len(versions[newest]) >= code.data:
            strips = {position: found[position][1] for position in versions[newest]}
            self._have_fetched(view, oid, answers)
            parts = code.decode(dict(sorted(strips.items())[:code.data]))
            return _cut(code, offset, length, found[versions[newest][0]][0], {
                position: (start, parts[position]) for position in range(code.data)})
        results = [result for result, _ in answers.values()]
        lost = code.width - len(holders) + results.count(Result.NO_OBJ)
        if lost > code.width - code.data:
            return Result.NO_OBJ, None, b""
        if Result.INVALID_PARMS in results:
            return Result.INVALID_PARMS, None, b""
        if lost + results.count(Result.EIO) > code.width - code.data:
            return Result.EIO, None, b""
        return Result.AGAIN, None, b""

    def _have_fetched(self, view, oid, answers):
        """Holders that turned out to lack their strip get it again."""
        for position, (result, _) in answers.items():
            if result == Result.NO_OBJ:
                holder = view.ring.holders(oid, position + 1)[-1]
                self._workers.submit(self._state.call_node, holder, {
                    "call": "refetch", "oid": oids.strip_oid(oid, position),
                    "revision": view.revision})

    def _ask(self, view, oid, holders, spans):
        """{position: (result, None or (trailer, bytes))} of ``spans``: {position: (from, to)}."""
        answers = {}
        wanted = {position: span for position, span in spans.items() if position < len(holders)}
        for position in spans.keys() - wanted.keys():
            answers[position] = Result.NO_OBJ, None
        arrived = threading.Condition()

        def taker(position):
            def take(answer, batch):
                with arrived:
                    answers[position] = _answered(answer.result, answer.payload)
                    arrived.notify()
            return take

        own = None
        for position, (start, stop) in wanted.items():
            if holders[position] == view.index:
                own = position
                continue
            view.links[holders[position]].submit(
                PeerOp.READ_STRIP, view.revision, taker(position),
                oid=oids.strip_oid(oid, position), offset=start, length=stop - start)
        if own is not None:
            start, stop = wanted[own]
            mine = _answered(*self._read_patiently(
                oids.strip_oid(oid, own), view.revision, start, stop - start))
            with arrived:
                answers[own] = mine
        with arrived:
            arrived.wait_for(lambda: len(answers) == len(spans), self._state.patience)
            for position in spans:
                answers.setdefault(position, (Result.NETWORK_ERROR, None))
            return dict(answers)


def _answered(result, payload):
    if result != Result.SUCCESS or len(payload) < TRAILER_SIZE:
        return result, None
    view = memoryview(payload)
    return result, (Trailer.unpack(view[:TRAILER_SIZE]), view[TRAILER_SIZE:])


def _cut(code, offset, length, head, parts):
    if offset + length > head.size:
        return Result.INVALID_PARMS, None, b""
    return Result.SUCCESS, head, code.assemble(offset, length, parts)
