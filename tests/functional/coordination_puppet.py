"""A process with one coordinator that does what a test tells it.

    python -m tests.functional.coordination_puppet RUNTIME SPEC TIMEOUT FD

Commands come through the socket with the number FD and are answered there, in lines that are
Python literals: ``(name, arguments)`` and ``("ok" or the name of an exception, value)``.
A name is that of a method or property of the coordinator, or of a function below.  The first
line answers the opening of the session, with its id.
"""

import ast
import contextlib
import enum
import os
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Seconds that a test waits for an answer.
ANSWER_DEADLINE = 30.0


class Puppet:
    """The process, as the test sees it: methods of the coordinator can be called on it.

    An exception there is a RuntimeError here, whose text begins with its name.
    """

    def __init__(self, spec: str, timeout: float, runtime: str):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", __name__, runtime, spec, str(timeout),
                 str(theirs.fileno())],
                cwd=ROOT, pass_fds=[theirs.fileno()])
        ours.settimeout(ANSWER_DEADLINE)
        self._file = ours.makefile("rw")
        ours.close()
        self.session_id = None

    def opened(self) -> "Puppet":
        """Waits until its session is open."""
        if self.session_id is None:
            self.session_id = self.answer()
        return self

    def begin(self, name, *arguments):
        """Tell it to do something, and do not wait."""
        self._file.write("%r\n" % ((name, arguments),))
        self._file.flush()

    def answer(self):
        """What came of it."""
        line = self._file.readline()
        if not line:
            raise RuntimeError("the process ended")
        outcome, value = ast.literal_eval(line)
        if outcome != "ok":
            raise RuntimeError("%s: %s" % (outcome, value))
        return value

    def __getattr__(self, name):
        def call(*arguments):
            self.begin(name, *arguments)
            return self.answer()

        if name.startswith("_"):
            raise AttributeError(name)
        return call

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self._file.close()


def race(coordinator, prefix, last):
    """Replace the map until its version is ``last``; what it won, as ``{version: data}``."""
    won = {}
    while True:
        _, version = coordinator.read_map()
        if version >= last:
            return won
        data = b"%s wants %d" % (prefix, version + 1)
        if coordinator.replace_map(data, version, version + 1) is not None:
            won[version + 1] = data


class _Watch:
    """Looks at the lease all the time, until the process was stopped for ``gap`` seconds."""

    def __init__(self, coordinator, gap):
        self._coordinator = coordinator
        self._gap = gap
        self.started = threading.Event()
        self.seen = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _look(self):
        coordinator = self._coordinator
        return coordinator.lease_valid(), coordinator.is_leader(), coordinator.state.name

    def _run(self):
        before, seen_before = _boottime(), self._look()
        self.started.set()
        while True:
            time.sleep(0.0005)
            began, seen, ended = _boottime(), self._look(), _boottime()
            if began - before >= self._gap:
                self.seen = seen_before, seen
                return
            before = began
            # Where it was stopped while it looked, nothing is known about what it saw.
            if ended - began < self._gap:
                seen_before = seen


def _boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_watches = []


def watch_lease(coordinator, gap):
    """Begin to look at the lease all the time."""
    watch = _Watch(coordinator, gap)
    _watches.append(watch)
    watch.started.wait()


def watched(coordinator):
    """``(lease_valid, is_leader, state)`` right before and right after this process was
    stopped."""
    watch = _watches.pop()
    watch.thread.join()
    return watch.seen


def _serve(coordinator, file):
    for line in file:
        name, arguments = ast.literal_eval(line)
        try:
            if name in globals():
                value = globals()[name](coordinator, *arguments)
            else:
                value = getattr(coordinator, name)
                if callable(value):
                    value = value(*arguments)
            answer = ("ok", value.name if isinstance(value, enum.Enum) else value)
        except Exception as error:
            answer = (type(error).__name__, str(error))
        file.write("%r\n" % (answer,))
        file.flush()


def main(runtime_name, spec, timeout, fd):
    from sheepstack import runtime

    runtime.choose(runtime_name)
    from sheepstack.coordination import connect

    coordinator = connect(spec, timeout=float(timeout))
    coordinator.open(lambda event: None)
    with socket.socket(fileno=int(fd)) as sock:
        file = sock.makefile("rw")
        file.write("%r\n" % (("ok", coordinator.session_id),))
        file.flush()
        _serve(coordinator, file)
    coordinator.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
