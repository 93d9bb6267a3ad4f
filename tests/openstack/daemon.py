"""Processes that the tests start, watch and end."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

from tests.functional.harness import HOST, start, wait_until

#: Where the programs of this environment are.
BIN = pathlib.Path(sys.executable).parent
START_TIMEOUT = 120


class Daemon:
    """One process, with its log in ``directory``; it does not outlive the tests.

    ``port``: of loopback, on which it listens once it is ready; None where it listens nowhere.
    ``environment``: variables that are added to our own.
    """

    def __init__(self, name, argv, directory, port=None, environment=None):
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = pathlib.Path(directory) / (name + ".log")
        self.port = port
        self.environment = environment or {}
        self.process = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self):
        """Start it, and do not wait."""
        assert not self.running, "%s runs already" % self.name
        with self.log.open("ab") as log:
            self.process = start(
                self.argv, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **{k: str(v) for k, v in self.environment.items()}})
        return self

    def wait_ready(self, timeout=START_TIMEOUT):
        wait_until(self.is_listening, timeout, lambda: "%s to listen on port %s:\n%s" % (
            self.name, self.port, self.log_tail()))

    def is_listening(self) -> bool:
        """Raises AssertionError where it has ended instead."""
        if not self.running:
            raise AssertionError("%s ended with status %s:\n%s" % (
                self.name, self.process.returncode, self.log_tail()))
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def kill(self):
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout=60):
        """Ask it to end in good order, and wait; it is killed where it does not."""
        if not self.running:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines=40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])


def run(argv, log, environment=None):
    """Run a command to its end; raises AssertionError with its output where it fails."""
    argv = [str(word) for word in argv]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})})
    with pathlib.Path(log).open("ab") as file:
        file.write(done.stdout)
    if done.returncode:
        raise AssertionError("%s ended with status %d:\n%s" % (
            " ".join(argv), done.returncode,
            done.stdout[-4000:].decode(errors="replace")))
    return done.stdout.decode(errors="replace")
