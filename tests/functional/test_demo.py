"""What the README promises of ``make demo``."""

import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

from tests.functional.harness import wait_until

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo" / "demo.py"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Function that runs the demo and returns what it prints."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(*options):
        done = subprocess.run([sys.executable, DEMO, *options], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    for pid in processes_below(tmp_path):
        os.kill(pid, signal.SIGKILL)


def processes_below(directory):
    """Ids of the processes whose command lines name a path in ``directory``."""
    pids = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"%s/" % bytes(directory) in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def test_the_demo_ends_well_and_leaves_nothing_behind(demo, tmp_path):
    printed = demo()
    assert printed.count("bytes are right") == 3
    assert "All is well" in printed
    assert processes_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_kept_demo_says_how_to_restart_the_dead_sheep_and_how_to_stop(demo, tmp_path):
    lines = [line.strip() for line in demo("--keep").splitlines()]
    commands = [line for line in lines if line.partition(" ")[0].endswith(("/dog", "/sheep"))]
    listing, = [line for line in commands if "vdi list" in line]
    start, = [line for line in commands if "/sheep " in line]
    shutdown, = [line for line in commands if "cluster shutdown" in line]

    def run(command):
        return subprocess.run(shlex.split(command), check=True, timeout=60,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    assert "alice" in run(listing) and "bob" in run(listing)
    run(start)
    wait_until(lambda: len(run(listing.replace("vdi list", "node list -r")).splitlines()) == 3,
               30, "the third sheep to join")
    run(shutdown)
    wait_until(lambda: not processes_below(tmp_path), 30, "the sheep to end")
