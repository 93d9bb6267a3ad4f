"""Processes that the tests start, watch and end."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import psutil

from tests.functional.harness import HOST, start, wait_until

#: Where the programs of this environment are.
BIN = pathlib.Path(sys.executable).parent
START_TIMEOUT = 300


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
        """End it and all processes that it started, at once."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family)
        self.process.wait()

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
