"""Unmounting after a death that left no time for it.

libfuse's ``auto_unmount`` is meant for that, but its helper looks once only, and does nothing
where it looks before the kernel has noticed that nobody answers any more.
"""

import errno
import os
import signal
import subprocess

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def watch(mountpoint: str, unmount: list) -> None:
    """Fork a process that unmounts ``mountpoint`` when this one and its children are gone.

    ``unmount``: the command that does it.  To be called before there are threads.
    """
    reading, writing = os.pipe()
    if os.fork():
        # The other end stays open for as long as there is one of us.
        os.close(reading)
        return
    try:
        os.close(writing)
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.read(reading, 1)
        _clear(mountpoint, unmount)
    finally:
        os._exit(0)


def _clear(mountpoint, unmount):
    while True:
        try:
            os.stat(mountpoint)
            return
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                # The kernel is just letting go of what waited for an answer, us as well.
                continue
            if error.errno != errno.ENOTCONN:
                return
        if subprocess.run([*unmount, mountpoint], check=False).returncode:
            return
