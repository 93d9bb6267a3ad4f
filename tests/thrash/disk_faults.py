"""A disk that fails: strace has system calls of a running sheep end with EIO.

Sheep read and write files by position, sockets and pipes never.
"""

import os
import shutil
import signal
import subprocess

#: By what fails: the calls that do.
CALLS = {
    "read": "pread64,preadv,preadv2",
    "write": "pwrite64,pwritev,pwritev2,fsync,fdatasync",
}


def are_possible() -> bool:
    """True where strace is installed, and we may trace."""
    return shutil.which("strace") is not None and os.geteuid() == 0


def begin(pid, what, every):
    """Each ``every``\\ th call of a thread fails from now on, until end() of what this returns."""
    calls = CALLS[what]
    return _Fault(subprocess.Popen(
        ["strace", "-f", "-qq", "-p", str(pid), "-o", os.devnull, "-e", "trace=" + calls,
         "-e", "inject=%s:error=EIO:when=%d+%d" % (calls, every, every)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


class _Fault:
    def __init__(self, tracer):
        self._tracer = tracer

    def end(self):
        self._tracer.send_signal(signal.SIGTERM)
        try:
            self._tracer.wait(10)
        except subprocess.TimeoutExpired:
            self._tracer.kill()
            self._tracer.wait()
