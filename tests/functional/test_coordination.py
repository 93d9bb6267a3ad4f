"""What every coordination driver must do, and what can go wrong with each.

All of it runs on native threads; most of it runs once more on eventlet, in a process of its
own (see the last test).
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import timeit

import pytest

from sheepstack.coordination import (BadSpec, CoordinationError, Event, SessionLost, SessionState,
                                     Unreachable, connect)
from sheepstack.coordination import fenced_lock
from sheepstack.coordination import session as session_module
from sheepstack.coordination.spec import LocalSpec, ZooKeeperSpec, default_directory, parse
from sheepstack.coordination.zookeeper_names import Names
from tests.functional.coordination_puppet import ROOT, Puppet
from tests.functional.zookeeper_server import Proxy, ZooKeeperServer, free_port

RUNTIME = os.environ.get("COORDINATION_TEST_RUNTIME", "threading")
DEADLINE = 15.0
TIMEOUT = 2.0
#: A session that is silent is gone after its timeout, a tick, and the time to notice.
GONE = TIMEOUT + 2.0

CONNECTED, SUSPENDED, LOST = SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.LOST


def eventually(condition, within=DEADLINE):
    """The first true value of ``condition()``; fails where there is none in so many seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)


class Session:
    """A coordinator, the events that it told, and a check that they come one at a time."""

    def __init__(self, spec, timeout=TIMEOUT, on_event=None, **options):
        self.coordinator = connect(spec, timeout=timeout, **options)
        self.events = []
        self.states = []
        self.in_callback = 0
        self.concurrent = False
        self._on_event = on_event

    def open(self):
        self.coordinator.open(self._handle)
        return self

    def _handle(self, event):
        self.in_callback += 1
        self.concurrent = self.concurrent or self.in_callback > 1
        self.events.append(event)
        if event is Event.STATE:
            self.states.append(self.coordinator.state)
        try:
            if self._on_event:
                self._on_event(event)
        finally:
            self.in_callback -= 1

    def __getattr__(self, name):
        return getattr(self.coordinator, name)


class Service:
    """A coordination service with nothing in it, and what a test opened on it."""

    def __init__(self, spec):
        self.spec = spec
        self._opened = contextlib.ExitStack()

    def open(self, spec=None, **options):
        session = Session(spec or self.spec, **options)
        self._opened.callback(session.close)
        return session.open()

    def members(self, count):
        """Sessions that published, in this order."""
        sessions = [self.open() for _ in range(count)]
        for number, session in enumerate(sessions):
            session.publish(b"member %d" % number)
        return sessions

    def puppets(self, count, timeout=TIMEOUT):
        puppets = [Puppet(self.spec, timeout, RUNTIME) for _ in range(count)]
        for puppet in puppets:
            self._opened.callback(puppet.kill)
        return [puppet.opened() for puppet in puppets]

    def close(self):
        self._opened.close()


_numbers = itertools.count(1)


@pytest.fixture
def cluster_id():
    return "coordination-%d-%d" % (os.getpid(), next(_numbers))


@pytest.fixture(params=["local", "zookeeper"])
def service(request, tmp_path, cluster_id):
    if request.param == "local":
        spec = "local:%s" % (tmp_path / "coordination")
    else:
        spec = request.getfixturevalue("zookeeper").spec(cluster_id)
    service = Service(spec)
    yield service
    service.close()


@pytest.fixture
def local(tmp_path):
    service = Service("local:%s" % (tmp_path / "coordination"))
    service.root = str(tmp_path / "coordination")
    yield service
    service.close()


@pytest.fixture
def zk(zookeeper, cluster_id):
    service = Service(zookeeper.spec(cluster_id))
    yield service
    service.close()


@pytest.fixture
def proxied(zookeeper, cluster_id, zk):
    """A service, and a proxy through which ``proxy.spec(cluster_id)`` reaches it too."""
    with Proxy(zookeeper.address) as proxy:
        zk.proxied_spec = proxy.spec(cluster_id)
        yield zk, proxy
        zk.close()


def in_threads(*functions):
    """Results of functions that run at the same time; an exception in one is raised here."""
    results = [None] * len(functions)

    def run(index, function):
        try:
            results[index] = function()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


# Members


def test_members_are_those_that_published(service):
    first, second, watcher = (service.open() for _ in range(3))
    assert watcher.members() == {}
    first.publish(b"one")
    second.publish(b"\0two\xff")
    expected = {first.session_id: b"one", second.session_id: b"\0two\xff"}
    for session in (first, second, watcher):
        assert session.members() == expected
        assert list(session.members()) == [first.session_id, second.session_id]
    assert len({first.session_id, second.session_id, watcher.session_id}) == 3


def test_an_entry_is_replaced_in_place_and_told(service):
    first, second = service.members(2)
    watcher = service.open()
    del watcher.events[:]
    first.publish(b"new")
    assert watcher.members() == {first.session_id: b"new", second.session_id: b"member 1"}
    assert list(watcher.members()) == [first.session_id, second.session_id]
    assert first.is_leader() and not second.is_leader()
    eventually(lambda: Event.MEMBERS in watcher.events)
    assert Event.LEADER not in watcher.events


def test_withdraw_leaves_the_line_and_keeps_locks(service):
    first, second = service.members(2)
    assert first.acquire("a", b"")
    first.withdraw()
    assert not first.is_leader()
    eventually(second.is_leader)
    assert second.members() == {second.session_id: b"member 1"}
    assert not second.acquire("a", b"")
    first.withdraw()
    first.publish(b"back")
    assert list(second.members()) == [second.session_id, first.session_id]


def test_close_is_seen_at_once(service):
    first, second, third = service.members(3)
    assert first.acquire("x", b"") and first.acquire("s", b"", True)
    started = time.monotonic()
    first.close()
    assert list(second.members()) == [second.session_id, third.session_id]
    assert second.acquire("x", b"") and second.acquire("s", b"")
    assert time.monotonic() - started < TIMEOUT / 2
    eventually(second.is_leader, within=TIMEOUT)


def test_calls_on_a_closed_session_say_so(service):
    session = service.open()
    session.close()
    session.close()
    assert session.state is LOST and not session.lease_valid() and not session.is_leader()
    for call in (session.members, session.read_map, session.resign, session.withdraw,
                 session.epochs, session.locks, lambda: session.publish(b""),
                 lambda: session.acquire("a", b""), lambda: session.release("a"),
                 lambda: session.holders("a"), lambda: session.history(1),
                 lambda: session.replace_map(b"", -1, 1)):
        with pytest.raises(SessionLost):
            call()
    with pytest.raises(CoordinationError):
        session.open()


def test_calls_before_open_say_so(service):
    coordinator = connect(service.spec)
    assert coordinator.state is SUSPENDED and not coordinator.lease_valid()
    with pytest.raises(CoordinationError, match="not opened"):
        coordinator.members()
    coordinator.close()


def test_what_is_too_large_is_refused(service):
    session = service.open()
    large = bytes(490 * 1024)
    for call in (lambda: session.publish(large), lambda: session.replace_map(large, -1, 1),
                 lambda: session.acquire("a", large)):
        with pytest.raises(CoordinationError, match="too large"):
            call()
    fits = bytes(480 * 1024)
    assert session.replace_map(fits, -1, 1) == 0
    assert session.read_map() == (fits, 0)
    assert session.lease_valid()


def test_many_members_that_come_and_go(service):
    watcher = service.open()
    sessions = [service.open() for _ in range(12)]
    in_threads(*(lambda n=n, s=s: s.publish(b"%d" % n) for n, s in enumerate(sessions)))
    assert sorted(watcher.members().values()) == sorted(b"%d" % n for n in range(12))
    line = list(watcher.members())
    # Everybody knows the same leader.
    for session in sessions:
        eventually(lambda: session.leader() == line[0])
    assert [s.session_id for s in sessions if s.is_leader()] == line[:1]
    gone = set(line[:6])
    in_threads(*(s.close for s in sessions if s.session_id in gone))
    assert list(watcher.members()) == line[6:]
    rest = [s for s in sessions if s.session_id not in gone]
    eventually(lambda: [s.session_id for s in rest if s.is_leader()] == line[6:7])


# The map


def test_the_map_is_replaced_by_compare_and_set(service):
    first, second = service.open(), service.open()
    assert first.read_map() == (None, -1)
    assert first.replace_map(b"a", 0, 1) is None
    assert first.replace_map(b"a", -1, 1) == 0
    assert second.replace_map(b"b", -1, 1) is None
    assert second.read_map() == (b"a", 0)
    assert second.replace_map(b"b", 0, 2) == 1
    assert first.replace_map(b"c", 0, 2) is None
    assert first.replace_map(b"c", 7, 2) is None
    assert first.read_map() == (b"b", 1)
    assert first.replace_map(b"", 1, 3) == 2
    assert second.read_map() == (b"", 2)


def test_history_keeps_the_last_map_of_each_epoch(service):
    first, second = service.open(), service.open()
    assert first.epochs() == [] and first.history(1) is None
    for version, (epoch, data) in enumerate(
            [(1, b"one"), (2, b"two"), (2, b"two again"), (3, b"three"), (2, b"two at last"),
             (12345678, b"far")]):
        assert first.replace_map(data, version - 1, epoch) == version
    assert second.epochs() == [1, 2, 3, 12345678]
    assert [second.history(epoch) for epoch in (1, 2, 3, 4, 12345678)] == [
        b"one", b"two at last", b"three", None, b"far"]
    # Who comes too late leaves no trace in the history either.
    assert second.replace_map(b"late", 2, 3) is None
    assert second.replace_map(b"late", 2, 99) is None
    assert first.history(3) == b"three" and first.epochs() == [1, 2, 3, 12345678]
    assert first.read_map() == (b"far", 5)


def test_of_many_threads_one_replaces_the_map(service):
    sessions = [service.open() for _ in range(6)]
    for version in range(8):
        won = in_threads(*(
            lambda n=n, s=s: s.replace_map(b"%d of %d" % (n, version), version - 1, version)
            for n, s in enumerate(sessions)))
        assert won.count(version) == 1 and won.count(None) == 5
        winner = b"%d of %d" % (won.index(version), version)
        for session in sessions:
            assert session.read_map() == (winner, version)
        assert sessions[0].history(version) == winner


def test_of_many_processes_one_replaces_the_map(service):
    puppets = service.puppets(3)
    session = service.open()
    for number, puppet in enumerate(puppets):
        puppet.begin("race", b"%d" % number, 60)
    won = [puppet.answer() for puppet in puppets]
    # Each version was won by exactly one, and its record is the winner's.
    versions = sorted(version for one in won for version in one)
    assert versions == list(range(61))
    records = {version: data for one in won for version, data in one.items()}
    assert session.epochs() == versions
    assert {version: session.history(version) for version in versions} == records
    assert session.read_map() == (records[60], 60)


def test_a_new_map_is_told(service):
    first, second = service.open(), service.open()
    for version in range(3):
        del first.events[:], second.events[:]
        assert first.replace_map(b"%d" % version, version - 1, version) == version
        for session in (first, second):
            eventually(lambda: Event.MAP in session.events)
        assert second.read_map() == (b"%d" % version, version)


def test_the_map_outlives_all_sessions(service):
    sessions = service.members(2)
    assert sessions[0].replace_map(b"kept", -1, 5) == 0
    assert sessions[0].acquire("a", b"")
    for session in sessions:
        session.close()
    session = service.open()
    assert session.read_map() == (b"kept", 0)
    assert session.history(5) == b"kept" and session.epochs() == [5]
    assert session.members() == {} and session.locks() == []
    assert session.leader() is None


# The leader


def test_leadership_goes_down_the_line(service):
    sessions = service.members(4)
    assert [session.is_leader() for session in sessions] == [True, False, False, False]
    sessions.pop(2).close()
    while sessions:
        leader = sessions[0]
        eventually(leader.is_leader)
        for session in sessions:
            eventually(lambda: session.leader() == leader.session_id)
        assert not any(session.is_leader() for session in sessions[1:])
        sessions.pop(0).close()
        if sessions:
            eventually(lambda: Event.LEADER in sessions[0].events)


def test_who_resigns_goes_to_the_end(service):
    first, second, third = service.members(3)
    first.resign()
    assert not first.is_leader()
    eventually(second.is_leader)
    assert list(third.members().items()) == [
        (second.session_id, b"member 1"), (third.session_id, b"member 2"),
        (first.session_id, b"member 0")]
    third.resign()
    assert list(third.members()) == [session.session_id for session in (second, first, third)]
    first.close()
    third.close()
    second.resign()
    eventually(second.is_leader)


def test_who_is_no_member_does_not_lead(service):
    session = service.open()
    session.resign()
    assert session.members() == {} and not session.is_leader() and session.leader() is None


def test_never_two_lead(service):
    sessions = service.members(3)
    terms = [0]
    stop = threading.Event()
    overlaps = []

    def look():
        while not stop.is_set():
            term = terms[0]
            leading = [session.is_leader() for session in sessions]
            # Counts only if nobody began to resign in between.
            if leading.count(True) > 1 and terms[0] == term:
                overlaps.append(leading)
            time.sleep(0)

    def rule():
        for _ in range(5):
            for session in sessions:
                eventually(session.is_leader)
                terms[0] += 1
                session.resign()
        stop.set()

    in_threads(look, rule)
    assert not overlaps


# Locks


def test_an_exclusive_lock_excludes(service):
    first, second = service.open(), service.open()
    assert first.acquire("vdi", b"one")
    assert not second.acquire("vdi", b"two") and not second.acquire("vdi", b"two", True)
    assert second.acquire("other", b"two")
    assert first.acquire("vdi", b"changed")
    assert second.holders("vdi") == [(first.session_id, b"one", False)]
    assert first.locks() == ["other", "vdi"]
    assert not second.release("vdi")
    assert first.release("vdi") and not first.release("vdi")
    assert second.holders("vdi") == [] and second.locks() == ["other"]
    assert second.acquire("vdi", b"two", shared=True)


def test_shared_locks_exclude_only_exclusive_ones(service):
    first, second, third = (service.open() for _ in range(3))
    assert first.acquire("vdi", b"one", True) and second.acquire("vdi", b"two", shared=True)
    assert not third.acquire("vdi", b"three")
    assert third.holders("vdi") == [(first.session_id, b"one", True),
                                    (second.session_id, b"two", True)]
    assert second.acquire("vdi", b"again", True)
    # In the other mode it has to be released first, even where nobody else has it.
    assert not first.acquire("vdi", b"one")
    assert first.release("vdi")
    assert not second.acquire("vdi", b"two")
    assert second.release("vdi") and second.acquire("vdi", b"two")
    assert not first.acquire("vdi", b"one", True)


def test_locks_have_any_name(service):
    first, second = service.open(), service.open()
    names = ["a/b", "..", ".", "with space", "a:x:b", "gr\u00fc\u00dfe", "%2f", "\udcff",
             "x" * 255]
    for name in names:
        assert first.acquire(name, name.encode(errors="surrogateescape"))
        assert not second.acquire(name, b"")
    assert second.locks() == sorted(names)
    for name in names:
        assert second.holders(name) == [
            (first.session_id, name.encode(errors="surrogateescape"), False)]
        assert first.release(name)
    assert second.locks() == []


def test_of_many_one_gets_the_lock(service):
    sessions = [service.open() for _ in range(6)]
    for turn in range(6):
        won = in_threads(*(lambda s=s: s.acquire("vdi", b"") for s in sessions))
        assert won.count(True) == 1 and won.count(False) == 5
        winner = sessions[won.index(True)]
        assert sessions[turn].holders("vdi") == [(winner.session_id, b"", False)]
        assert winner.release("vdi")


def test_different_locks_do_not_disturb_each_other(service):
    sessions = [service.open() for _ in range(6)]
    names = [["%d-%d" % (n, k) for k in range(8)] for n in range(6)]
    won = in_threads(*(lambda s=s, mine=mine: [s.acquire(name, b"") for name in mine]
                       for s, mine in zip(sessions, names)))
    assert all(all(each) for each in won)
    assert sessions[0].locks() == sorted(name for mine in names for name in mine)


# Events


def test_events_come_one_at_a_time_and_coalesced(service):
    entered, go_on = threading.Event(), threading.Event()

    def block(event):
        entered.set()
        assert go_on.wait(DEADLINE)

    watcher = service.open(on_event=block)
    try:
        assert entered.wait(DEADLINE)
        publisher = service.open()
        for number in range(20):
            publisher.publish(b"%d" % number)
            assert publisher.replace_map(b"%d" % number, number - 1, number) == number
        # Handling an event holds up nothing else.
        eventually(lambda: watcher.leader() == publisher.session_id)
        assert watcher.lease_valid()
    finally:
        go_on.set()
    eventually(lambda: {Event.MEMBERS, Event.MAP, Event.LEADER} <= set(watcher.events))
    publisher.publish(b"last")
    eventually(lambda: watcher.events.count(Event.MEMBERS) >= 2)
    assert len(watcher.events) < 12
    assert not watcher.concurrent


def test_an_event_may_be_handled_with_any_call(service):
    seen = []

    def handle(event):
        if event is Event.MEMBERS:
            seen.append((session.members(), session.read_map(), session.acquire("a", b"")))
            session.close()

    session = service.open(on_event=handle)
    other = service.members(1)[0]
    eventually(lambda: session.state is LOST)
    assert seen == [({other.session_id: b"member 0"}, (None, -1), True)]
    count = len(session.events)
    other.publish(b"more")
    other.withdraw()
    assert len(session.events) == count


def test_a_handler_that_fails_is_called_again(service):
    def fail(event):
        raise ValueError("on purpose")

    session = service.open(on_event=fail)
    eventually(lambda: Event.STATE in session.events)
    other = service.open()
    for entry in (b"one", b"two"):
        del session.events[:]
        other.publish(entry)
        eventually(lambda: Event.MEMBERS in session.events)


# Faults that every driver survives


def test_opened_is_connected_and_told(service):
    first = service.members(1)[0]
    assert first.replace_map(b"map", -1, 1) == 0
    session = service.open()
    assert session.state is CONNECTED and session.lease_valid()
    assert session.leader() == first.session_id
    eventually(lambda: {Event.MEMBERS, Event.MAP, Event.LEADER} <= set(session.events))
    assert session.events[0] is Event.STATE and session.states == [CONNECTED]
    assert session.session_timeout == pytest.approx(TIMEOUT)


def test_a_lease_is_kept_up(service):
    session = service.open()
    deadline = time.monotonic() + TIMEOUT * 1.2
    while time.monotonic() < deadline:
        assert session.lease_valid() and session.state is CONNECTED
        time.sleep(0.005)


def test_lease_valid_costs_next_to_nothing(service):
    session = service.open()
    calls = 20000
    cost = min(timeit.repeat(session.coordinator.lease_valid, number=calls, repeat=7)) / calls
    assert cost < 1e-6


def test_a_killed_process_is_gone(service):
    leader, second = service.puppets(2)
    leader.publish(b"leader")
    second.publish(b"second")
    watcher = service.open()
    watcher.publish(b"watcher")
    assert leader.acquire("x", b"") and leader.acquire("s", b"", True)
    assert leader.is_leader()
    assert not watcher.acquire("x", b"")
    started = time.monotonic()
    leader.kill()
    eventually(lambda: list(watcher.members()) == [second.session_id, watcher.session_id])
    if service.spec.startswith("local"):
        assert time.monotonic() - started < 0.5
    assert time.monotonic() - started < GONE
    assert watcher.acquire("x", b"") and watcher.acquire("s", b"")
    eventually(lambda: second.is_leader())
    eventually(lambda: watcher.leader() == second.session_id)


def test_a_process_stopped_for_too_long_is_lost(service):
    leader, = service.puppets(1)
    leader.publish(b"leader")
    watcher = service.open()
    watcher.publish(b"watcher")
    assert leader.acquire("x", b"")
    eventually(lambda: leader.is_leader() and leader.lease_valid())
    leader.watch_lease(TIMEOUT / 2)
    eventually(lambda: watcher.leader() == leader.session_id)
    leader.pause()
    started = time.monotonic()
    eventually(watcher.is_leader)
    # It is not given up before its time, and not long after.
    assert TIMEOUT * 0.8 < time.monotonic() - started < GONE
    assert list(watcher.members()) == [watcher.session_id]
    assert watcher.acquire("x", b"")
    leader.resume()
    before, after = leader.watched()
    assert before == (True, True, "CONNECTED")
    assert after == (False, False, "LOST")
    # Nothing brings it back.
    with pytest.raises(RuntimeError, match="SessionLost"):
        leader.publish(b"again")
    with pytest.raises(RuntimeError, match="SessionLost"):
        leader.replace_map(b"again", -1, 1)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert (leader.state(), leader.lease_valid(), leader.is_leader()) == (
            "LOST", False, False)
    assert list(watcher.members()) == [watcher.session_id]


def test_the_only_process_stopped_for_too_long_is_lost_too(service):
    timeout = TIMEOUT / 2
    leader, = service.puppets(1, timeout)
    leader.publish(b"leader")
    eventually(lambda: leader.is_leader())
    leader.watch_lease(timeout / 2)
    leader.pause()
    deadline = time.monotonic() + timeout * 1.1
    eventually(lambda: time.monotonic() > deadline)
    leader.resume()
    _, after = leader.watched()
    assert after == (False, False, "LOST")
    watcher = service.open()
    eventually(lambda: watcher.members() == {})


def test_a_process_stopped_for_a_moment_goes_on(service):
    timeout = 4 * TIMEOUT
    leader, = service.puppets(1, timeout)
    leader.publish(b"leader")
    watcher = service.open()
    eventually(lambda: leader.is_leader())
    leader.pause()
    # Others do their work while it is stopped, wherever it is.
    for number in range(10):
        watcher.publish(b"%d" % number)
        assert watcher.acquire("%d" % number, b"")
    leader.resume()
    eventually(lambda: leader.is_leader())
    assert leader.state() == "CONNECTED"
    assert list(watcher.members()) == [leader.session_id, watcher.session_id]


# Bad words


@pytest.mark.parametrize("spec", [
    "", "zookeeper", "zookeeper:", "zookeeper:/id", "zookeeper:host:0", "zookeeper:host:65536",
    "zookeeper:host:port", "zookeeper:a:1,,b:2", "zookeeper:a b:1", "zookeeper:a:1/",
    "zookeeper:a:1/x/y", "zookeeper:a:1/..", "zookeeper:a:1/x y", "zookeeper:a:1/" + "x" * 65,
    "zookeeper:a:1,timeout=", "zookeeper:a:1,timeout=fast", "zookeeper:a:1,timeout=0",
    "zookeeper:a:1/x,timeout=-5", "zookeeper:[::1:2181", "etcd:a:1", "corosync", "Local",
    "local:/x,timeout=99999999"])
def test_a_bad_spec_is_refused_in_one_line(spec):
    with pytest.raises(BadSpec) as caught:
        connect(spec)
    assert re.fullmatch(r"\S[^\n]{10,300}", str(caught.value))
    assert repr(spec)[1:-1] in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, 1e9, float("nan"), float("inf")])
def test_a_bad_timeout_is_refused(timeout):
    with pytest.raises(BadSpec, match="timeout"):
        connect("local:/x", timeout=timeout)


@pytest.mark.parametrize("spec, timeout, parsed", [
    ("local", None, LocalSpec(default_directory(), 5.0)),
    ("local:", 2, LocalSpec(default_directory(), 2.0)),
    ("local:/a/b", None, LocalSpec("/a/b", 5.0)),
    ("local:/a,b", 3, LocalSpec("/a,b", 3.0)),
    ("local:/a/b,timeout=1500", 3, LocalSpec("/a/b", 1.5)),
    ("zookeeper:a", None, ZooKeeperSpec(("a:2181",), "default", 10.0)),
    ("zookeeper:a:1", 4, ZooKeeperSpec(("a:1",), "default", 4.0)),
    ("zookeeper:a.b-c:1,10.0.0.1:2,[::1]:3/id_1.x", None,
     ZooKeeperSpec(("a.b-c:1", "10.0.0.1:2", "[::1]:3"), "id_1.x", 10.0)),
    ("zookeeper:a:1,b:2,timeout=7000/id", 4, ZooKeeperSpec(("a:1", "b:2"), "id", 7.0)),
    ("zookeeper:a:1/id,timeout=7000", 4, ZooKeeperSpec(("a:1",), "id", 7.0)),
])
def test_a_good_spec_is_understood(spec, timeout, parsed):
    assert parse(spec, timeout) == parsed


def test_the_local_directory_can_be_set(monkeypatch):
    monkeypatch.setenv("SHEEPSTACK_LOCAL_DIR", "/somewhere")
    assert parse("local").directory == "/somewhere"
    monkeypatch.delenv("SHEEPSTACK_LOCAL_DIR")
    assert parse("local").directory == "/tmp/sheepstack-%d/local" % os.getuid()


# The local driver


def hold_and_stop(root, name, target, before="open"):
    """Process that stops while it has the lock, before that function of ``os`` is called the
    next time; then it commits, and tells what happened."""
    process = subprocess.Popen(
        [sys.executable, "-c", "if True:\n"
         "    import os, signal, sys\n"
         "    from sheepstack.coordination.fenced_lock import Fenced, FencedLock\n"
         "    root, name, target, before = sys.argv[1:]\n"
         "    function = getattr(os, before)\n"
         "    def stop(*args, **kwargs):\n"
         "        setattr(os, before, function)\n"
         "        os.kill(os.getpid(), signal.SIGSTOP)\n"
         "        return function(*args, **kwargs)\n"
         "    try:\n"
         "        with FencedLock(root, name).hold() as hold:\n"
         "            setattr(os, before, stop)\n"
         "            hold.commit(b'from the dead', target)\n"
         "        print('committed')\n"
         "    except Fenced:\n"
         "        print('fenced')\n",
         root, name, target, before], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    return process


@pytest.mark.parametrize("before", ["open", "rename"])
def test_who_stops_with_the_lock_holds_up_nobody(local, before):
    session = local.open()
    state = os.path.join(local.root, "state")
    process = hold_and_stop(local.root, "stopped", state, before)
    try:
        started = time.monotonic()
        assert session.acquire("a", b"")
        # Not without waiting for it, though.
        assert fenced_lock.STUCK_AFTER <= time.monotonic() - started < TIMEOUT * 2
        assert session.lease_valid()
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0] == "fenced\n"
    finally:
        process.kill()
    assert session.acquire("b", b"") and session.locks() == ["a", "b"]


def test_who_stops_with_the_lock_and_is_left_alone_commits(local):
    local.open()
    target = os.path.join(local.root, "target")
    process = hold_and_stop(local.root, "stopped", target)
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "committed\n"
    with open(target, "rb") as file:
        assert file.read() == b"from the dead"


def test_who_has_expired_cannot_commit(local):
    session = local.open()
    state = os.path.join(local.root, "state")
    process = hold_and_stop(local.root, "expired", state)
    try:
        fenced_lock.FencedLock(local.root, session.session_id).break_if_held_by("another")
        fenced_lock.FencedLock(local.root, session.session_id).break_if_held_by("expired")
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0] == "fenced\n"
    finally:
        process.kill()
    assert not os.path.exists(state)


def test_a_lock_of_a_killed_process_is_free_at_once(local):
    session = local.open()
    process = hold_and_stop(local.root, "killed", os.path.join(local.root, "state"))
    process.kill()
    process.wait()
    started = time.monotonic()
    assert session.acquire("a", b"")
    assert time.monotonic() - started < fenced_lock.STUCK_AFTER / 2


def test_a_lock_broken_by_mistake_costs_nothing(local):
    sessions = [local.open() for _ in range(4)]
    stop = threading.Event()

    def break_locks():
        lock = fenced_lock.FencedLock(local.root, "breaker")
        while not stop.is_set():
            for session in sessions:
                lock.break_if_held_by(session.session_id)
            time.sleep(0.0005)

    def change(number):
        try:
            for turn in range(15):
                assert sessions[number].acquire("%d-%d" % (number, turn), b"")
            return sessions[number].replace_map(b"%d" % number, -1, number)
        finally:
            if number == 0:
                stop.set()

    _, *won = in_threads(break_locks, *(lambda n=n: change(n) for n in range(4)))
    assert len(sessions[0].locks()) == 60
    assert sorted(won, key=str) == [0, None, None, None]


def test_leftovers_are_removed_and_do_no_harm(local):
    puppet, = local.puppets(1)
    puppet.publish(b"dead")
    assert puppet.acquire("a", b"") and puppet.replace_map(b"map", -1, 1) == 0
    puppet.kill()
    left = os.path.join(local.root, "tmp", "%s-7" % puppet.session_id)
    broken = os.path.join(local.root, fenced_lock.BROKEN + "0")
    os.mkdir(broken)
    with open(left, "wb") as file:
        file.write(b"half a map")
    session = local.open()
    assert session.members() == {} and session.locks() == [] and session.acquire("a", b"")
    assert session.read_map() == (b"map", 0)
    assert not os.path.exists(left) and not os.path.exists(broken)
    assert os.listdir(os.path.join(local.root, "sessions")) == [session.session_id]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"serial": 1}', b"\xff\xfe",
                                    b'{"serial": 1, "members": {"a": 1}, "locks": {}}'])
def test_a_damaged_state_is_an_empty_one(local, damage):
    local.open().close()
    with open(os.path.join(local.root, "state"), "wb") as file:
        file.write(damage)
    session = local.open()
    assert session.members() == {} and session.locks() == []
    session.publish(b"here")
    assert session.members() == {session.session_id: b"here"} and session.is_leader()


def test_whose_directory_is_removed_is_lost(local):
    session = local.open()
    session.publish(b"here")
    shutil.rmtree(local.root)
    eventually(lambda: session.state is LOST, within=TIMEOUT)
    with pytest.raises(SessionLost):
        session.publish(b"there")


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match=re.escape(str(tmp_path / "file"))):
        connect("local:%s" % (tmp_path / "file")).open(print)
    with pytest.raises(Unreachable, match="Not a directory"):
        connect("local:%s" % (tmp_path / "file" / "below")).open(print)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_not_used(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o777)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(Unreachable, match="belongs to somebody else"):
        connect("local:%s" % (tmp_path / "theirs")).open(print)


def test_directories_keep_clusters_apart(tmp_path):
    services = [Service("local:%s" % (tmp_path / name)) for name in ("a", "b")]
    keep_apart(*services)


def keep_apart(one, other):
    with contextlib.closing(one), contextlib.closing(other):
        first, second = one.members(1)[0], other.members(1)[0]
        assert first.is_leader() and second.is_leader()
        assert first.acquire("vdi", b"") and second.acquire("vdi", b"")
        assert first.replace_map(b"first", -1, 1) == 0
        assert second.read_map() == (None, -1)
        assert second.replace_map(b"second", -1, 1) == 0
        assert first.history(1) == b"first" and second.history(1) == b"second"
        assert len(first.members()) == len(second.members()) == 1


# The zookeeper driver


def test_cluster_ids_keep_clusters_apart(zookeeper, cluster_id):
    keep_apart(Service(zookeeper.spec(cluster_id + "a")), Service(zookeeper.spec(cluster_id)))


def test_a_lost_connection_suspends_until_it_is_back(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=3 * TIMEOUT)
    session.publish(b"first")
    other = zk.open()
    other.publish(b"second")
    assert session.acquire("a", b"") and session.is_leader()
    eventually(lambda: CONNECTED in session.states)
    id_before = session.session_id
    proxy.cut()
    eventually(lambda: session.state is SUSPENDED)
    assert not session.lease_valid() and not session.is_leader()
    # Nobody takes over meanwhile, and the map goes on.
    assert not other.is_leader() and not other.acquire("a", b"")
    assert other.replace_map(b"meanwhile", -1, 1) == 0
    del session.events[:]
    proxy.heal()
    eventually(lambda: session.state is CONNECTED)
    eventually(session.is_leader)
    assert session.session_id == id_before
    assert session.read_map() == (b"meanwhile", 0)
    assert list(session.members()) == [session.session_id, other.session_id]
    assert session.holders("a") == [(session.session_id, b"", False)]
    eventually(lambda: {Event.STATE, Event.MAP} <= set(session.events))
    eventually(lambda: session.states == [CONNECTED, SUSPENDED, CONNECTED])
    # Watches are alive again.
    del session.events[:]
    other.withdraw()
    eventually(lambda: Event.MEMBERS in session.events)


def test_calls_wait_for_the_connection(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=3 * TIMEOUT)
    proxy.cut()
    eventually(lambda: session.state is SUSPENDED)

    def heal():
        assert not done
        proxy.heal()

    done = []
    calls = (lambda: session.publish(b"a"), lambda: session.replace_map(b"b", -1, 1),
             lambda: session.acquire("c", b""))
    results = in_threads(heal, *(lambda c=c: (c(), done.append(1))[0] for c in calls))
    assert results == [None, None, 0, True]
    assert session.members() == {session.session_id: b"a"}


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_a_connection_gone_for_too_long_is_lost(proxied, fault):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec)
    session.publish(b"first")
    other = zk.open()
    other.publish(b"second")
    assert session.acquire("a", b"")
    eventually(lambda: session.is_leader())
    started = time.monotonic()
    getattr(proxy, fault)()
    # By its own clock it ends before anybody else may take over.
    eventually(lambda: not session.lease_valid())
    assert not other.is_leader()
    eventually(lambda: session.state is LOST)
    assert time.monotonic() - started < GONE
    eventually(other.is_leader)
    assert time.monotonic() - started < GONE
    assert list(other.members()) == [other.session_id] and other.acquire("a", b"")
    with pytest.raises(SessionLost):
        session.publish(b"again")
    proxy.heal()
    eventually(lambda: session.states[-1] is LOST)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert session.state is LOST and not session.lease_valid()
    assert list(other.members()) == [other.session_id]


def test_a_call_ends_with_the_session(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=1.0)
    proxy.freeze()
    started = time.monotonic()
    for call in (lambda: session.publish(b""), session.members):
        with pytest.raises(SessionLost):
            call()
    assert time.monotonic() - started < 3.0
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 3.0


def test_an_expired_session_is_lost(zookeeper, zk):
    first, second = zk.members(2)
    assert first.acquire("a", b"")
    zookeeper.expire(first.session_id)
    eventually(lambda: first.state is LOST, within=TIMEOUT)
    assert not first.lease_valid() and not first.is_leader()
    eventually(lambda: LOST in first.states)
    eventually(second.is_leader)
    assert second.acquire("a", b"")
    for call in (lambda: first.publish(b""), first.members,
                 lambda: first.replace_map(b"", -1, 1)):
        with pytest.raises(SessionLost):
            call()
    # The session that kazoo begins by itself leaves nothing behind.
    assert list(second.members()) == [second.session_id]
    # A new coordinator is the way back.
    third = zk.open()
    third.publish(b"back")
    assert list(second.members()) == [second.session_id, third.session_id]


def test_expiry_in_the_middle_of_changes(zookeeper, zk):
    session, watcher = zk.open(), zk.open()
    changing, lost = threading.Event(), threading.Event()

    def change():
        with pytest.raises(SessionLost):
            for number in itertools.count():
                session.publish(b"%d" % number)
                session.acquire("%d" % number, b"")
                changing.set()
        lost.set()

    def expire():
        assert changing.wait(DEADLINE)
        zookeeper.expire(session.session_id)
        assert lost.wait(DEADLINE)

    in_threads(change, expire)
    eventually(lambda: watcher.members() == {} and watcher.locks() == [])


def test_a_change_in_the_wrong_session_is_refused(zookeeper, zk, cluster_id):
    session, watcher = zk.open(), zk.open()
    session.publish(b"here")
    assert session.replace_map(b"map", -1, 1) == 0
    # As if kazoo were in a session that it began by itself.
    with zookeeper.client() as client:
        client.delete(Names(cluster_id).fence(session.session_id))
    with pytest.raises(SessionLost):
        session.replace_map(b"new", 0, 2)
    assert session.state is LOST
    assert watcher.read_map() == (b"map", 0) and watcher.epochs() == [1]
    eventually(lambda: watcher.members() == {})


def test_a_change_that_is_made_late_is_not_made_twice(zookeeper, zk, cluster_id):
    session, watcher = zk.open(), zk.open()
    names = Names(cluster_id)
    with zookeeper.client() as client:
        # As if a first attempt were carried out after it was looked for in vain.
        client.create(names.new_member(session.session_id), b"late", sequence=True)
        client.set(names.fence(session.session_id), b"")
        session.publish(b"entry")
        assert watcher.members() == {session.session_id: b"entry"}
        assert len(client.get_children(names.members)) == 1
    eventually(session.is_leader)
    watcher.publish(b"watcher")
    session.resign()
    eventually(watcher.is_leader)
    assert list(watcher.members().values()) == [b"watcher", b"entry"]


def test_a_restart_of_zookeeper_is_survived(cluster_id):
    with ZooKeeperServer() as server:
        zk = Service(server.spec(cluster_id))
        with contextlib.closing(zk):
            first, second = (zk.open(timeout=12.0) for _ in range(2))
            first.publish(b"first")
            second.publish(b"second")
            assert first.acquire("a", b"") and first.replace_map(b"map", -1, 1) == 0
            server.kill()
            for session in (first, second):
                eventually(lambda: session.state is SUSPENDED and not session.lease_valid())
            server.start()
            for session in (first, second):
                eventually(lambda: session.state is CONNECTED)
                assert session.read_map() == (b"map", 0)
                assert list(session.members()) == [first.session_id, second.session_id]
            eventually(first.is_leader)
            assert not second.acquire("a", b"")
            # In good order, and with its connections stuck for a while.
            server.stop()
            eventually(lambda: first.state is SUSPENDED)
            server.start()
            eventually(lambda: first.state is CONNECTED)
            server.pause()
            server.resume()
            second.resign()
            assert first.replace_map(b"new", 0, 2) == 1


def lose_answer(proxy, marker, act, seen):
    """Result of ``act()``: its request, known by ``marker``, is carried out (``seen()``), but
    the answer is lost with the connection."""
    def cause():
        eventually(seen)
        proxy.cut()
        proxy.heal()

    proxy.mute(marker)
    return in_threads(act, cause)[0]


def test_a_change_whose_answer_is_lost_is_made_once(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=4 * TIMEOUT)
    watcher = zk.open()

    def line():
        return list(watcher.members().values())

    own = b"/members/%s-" % session.session_id.encode()
    lose_answer(proxy, own, lambda: session.publish(b"entry"), lambda: line() == [b"entry"])
    assert watcher.members() == {session.session_id: b"entry"}
    eventually(session.is_leader)
    lose_answer(proxy, own, lambda: session.publish(b"new"), lambda: line() == [b"new"])
    assert watcher.members() == {session.session_id: b"new"}

    watcher.publish(b"watcher")
    lose_answer(proxy, own, session.resign, lambda: line() == [b"watcher", b"new"])
    assert line() == [b"watcher", b"new"]
    eventually(watcher.is_leader)
    watcher.resign()
    eventually(session.is_leader)

    assert lose_answer(proxy, b"the map", lambda: session.replace_map(b"the map", -1, 1),
                       lambda: watcher.read_map() == (b"the map", 0)) == 0
    assert lose_answer(proxy, b"next", lambda: session.replace_map(b"next", 0, 2),
                       lambda: watcher.read_map() == (b"next", 1)) == 1
    # Ours was made, and replaced by somebody else's before we could look.
    assert lose_answer(proxy, b"ours", lambda: session.replace_map(b"ours", 1, 3),
                       lambda: watcher.read_map() == (b"ours", 2)
                       and watcher.replace_map(b"theirs", 2, 4) == 3) == 2
    assert watcher.read_map() == (b"theirs", 3) and watcher.history(3) == b"ours"

    assert lose_answer(proxy, b"lock a", lambda: session.acquire("a", b"lock a"),
                       lambda: watcher.holders("a") == [(session.session_id, b"lock a", False)])
    assert not watcher.acquire("a", b"")
    assert lose_answer(proxy, b"/a:x:", lambda: session.release("a"),
                       lambda: watcher.holders("a") == [])
    lose_answer(proxy, own, session.withdraw, lambda: line() == [b"watcher"])
    assert line() == [b"watcher"]
    assert session.state is CONNECTED


def test_changes_are_exact_while_connections_break(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=8 * TIMEOUT)
    rival = zk.open()
    stop = threading.Event()

    def break_connections():
        while not stop.wait(0.15):
            proxy.mute()
            proxy.cut()
            proxy.heal()

    def change(one, mark):
        won = {}
        while True:
            _, version = one.read_map()
            if version >= 60:
                stop.set()
                return won
            one.publish(mark)
            data = b"%s %d" % (mark, version + 1)
            if one.replace_map(data, version, version + 1) is not None:
                won[version + 1] = data

    _, ours, theirs = in_threads(break_connections, lambda: change(session, b"a"),
                                 lambda: change(rival, b"b"))
    assert not set(ours) & set(theirs)
    assert sorted([*ours, *theirs]) == list(range(61))
    assert {epoch: rival.history(epoch) for epoch in rival.epochs()} == {**ours, **theirs}
    assert rival.members() == {session.session_id: b"a", rival.session_id: b"b"}


def test_the_service_decides_on_the_timeout(cluster_id):
    with ZooKeeperServer(tick=0.5, max_timeout=3.0) as server:
        with contextlib.closing(Service(server.spec(cluster_id))) as zk:
            assert zk.open(timeout=60.0).session_timeout == pytest.approx(3.0)
            assert zk.open(timeout=0.2).session_timeout == pytest.approx(1.0)
            assert zk.open(timeout=2.5).session_timeout == pytest.approx(2.5)


def test_a_service_that_refuses_is_named_in_time():
    port = free_port()
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"^ZooKeeper at 127\.0\.0\.1:%d does not answer" % port):
        connect("zookeeper:127.0.0.1:%d" % port, timeout=1.0).open(print)
    assert time.monotonic() - started < 3.0


def test_a_service_that_is_silent_is_named_in_time():
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            connect("zookeeper:127.0.0.1:%d" % silent.getsockname()[1],
                    connect_timeout=0.5).open(print)
        assert time.monotonic() - started < 3.0


def test_a_host_without_address_is_named_in_time():
    with pytest.raises(Unreachable, match="host.invalid"):
        connect("zookeeper:host.invalid:2181", timeout=0.5).open(print)


def test_a_service_that_falls_silent_while_opened_is_named_in_time(zookeeper, cluster_id):
    with Proxy(zookeeper.address) as proxy:
        coordinator = connect(proxy.spec(cluster_id), timeout=1.0)
        connected = threading.Event()
        coordinator._client.add_listener(lambda state: (proxy.freeze(), connected.set()))
        started = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            coordinator.open(print)
        assert connected.is_set()
        assert time.monotonic() - started < 4.0


def test_a_lost_greeting_does_not_cost_the_session(proxied):
    zk, proxy = proxied
    session = zk.open(zk.proxied_spec, timeout=3 * TIMEOUT)
    session.publish(b"here")
    # The number of the session is in what a client sends first.
    proxy.mute(bytes.fromhex(session.session_id))
    proxy.drop()
    eventually(lambda: proxy.lost)
    # What comes from now on arrives, but this connection waits for what was lost.
    proxy.heal()
    assert session.state is SUSPENDED
    eventually(lambda: session.state is CONNECTED)
    assert list(session.members()) == [session.session_id]


def test_a_silent_server_does_not_cost_the_session(zookeeper, cluster_id):
    with Proxy(zookeeper.address) as proxy, Proxy(zookeeper.address) as spare:
        spare.freeze()
        spec = "zookeeper:%s,%s/%s" % (spare.address, proxy.address, cluster_id)
        zk = Service(spec)
        with contextlib.closing(zk):
            session = zk.open()
            session.publish(b"here")
            for number in range(3):
                # The server in use falls silent, the other one serves.
                proxy.freeze()
                spare.heal()
                session.publish(b"%d" % number)
                eventually(lambda: session.state is CONNECTED)
                proxy, spare = spare, proxy
            assert list(session.members()) == [session.session_id]


# The session by the clock


@pytest.fixture
def clocked():
    """A session of 10 s whose lease ends after 7 s, and a list of the states it told."""
    told = []
    session = session_module.Session(10.0, 0.3, lambda: told.append(session.state))
    return session, told


def test_a_lease_counts_from_when_the_heartbeat_was_sent(clocked):
    session, told = clocked
    assert session.state is SUSPENDED
    sent = session_module.now() - 5.0
    assert session.renew(sent, session.round)
    assert session.valid_until == pytest.approx(sent + 7.0)
    assert session.state is CONNECTED and told == [CONNECTED]


def test_an_answer_that_comes_late_is_worth_less(clocked):
    session, told = clocked
    assert session.renew(session_module.now() - 8.0, session.round)
    assert session.state is SUSPENDED
    assert session.renew(session_module.now() - 1.0, session.round)
    assert session.state is CONNECTED
    session, told = clocked
    session.renew(session_module.now() - 11.0, session.round)
    assert session.state is LOST and session.valid_until == 0.0 and told[-1] is LOST
    assert not session.renew(session_module.now(), session.round)
    assert session.state is LOST


def test_an_answer_from_before_a_suspension_counts_for_nothing(clocked):
    session, told = clocked
    round, sent = session.round, session_module.now()
    session.suspend()
    assert not session.renew(sent, round)
    assert session.state is SUSPENDED and session.valid_until == 0.0
    assert session.renew(sent, session.round, 20.0)
    assert session.valid_until == pytest.approx(sent + 14.0) and session.timeout == 20.0
    session.lose()
    session.suspend()
    assert not session.renew(session_module.now(), session.round)
    assert session.state is LOST
    assert told == [CONNECTED, LOST]


# On eventlet

#: What touches threads, sockets or processes in a way of its own.
ESSENTIAL = (
    "members_are_those", "is_replaced_in_place", "close_is_seen", "many_members", "of_many",
    "a_new_map_is_told", "goes_down_the_line", "never_two_lead", "disturb_each_other",
    "events_come", "handled_with_any_call", "opened_is_connected", "costs_next_to_nothing",
    "a_killed_process", "test_a_process_stopped", "broken_by_mistake", "lost_connection",
    "calls_wait", "gone_for_too_long", "expired_session", "middle_of_changes", "a_restart",
    "answer_is_lost", "are_exact", "that_is_silent", "silent_server")


@pytest.fixture(scope="module", autouse=True)
def run_on_eventlet(request, tmp_path_factory):
    """The process of the last test, where that was chosen: it goes on beside the others, as
    most of them wait most of the time."""
    if not any(item.name == "test_the_essential_on_eventlet" for item in request.session.items):
        yield None
        return
    report = tmp_path_factory.mktemp("eventlet") / "report"
    with report.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c",
             "import sys\n"
             "from sheepstack import runtime\n"
             "runtime.choose('eventlet')\n"
             "import pytest\n"
             "sys.exit(pytest.main(sys.argv[1:]))\n",
             __file__, "-q", "-p", "no:cacheprovider", "-k", " or ".join(ESSENTIAL)],
            cwd=ROOT, env={**os.environ, "COORDINATION_TEST_RUNTIME": "eventlet"},
            stdout=output, stderr=output)
    yield process, report
    process.kill()
    process.wait()


if RUNTIME == "threading":
    def test_the_essential_on_eventlet(run_on_eventlet):
        process, report = run_on_eventlet
        assert process.wait() == 0, report.read_text()
        assert " passed" in report.read_text()
