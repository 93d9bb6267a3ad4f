"""A PostgreSQL server of a test's own."""

import glob
import os
import pathlib
import shutil
import signal
import subprocess

from tests.functional.harness import HOST, free_port, start, wait_until

_USER = "postgres"
_START_TIMEOUT = 60


class PostgreSQL:
    """Keeps its data below ``directory``.  PostgreSQL does not run as root."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        self.data = self.directory / "data"
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [
            os.path.dirname(shutil.which("postgres") or "postgres")]
        self._bin = pathlib.Path(found[-1])
        self._as_user = ["setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups"] \
            if os.geteuid() == 0 else []
        self.process = None
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.parents):
                if path.stat().st_uid == 0 and path.stat().st_mode & 0o005 != 0o005:
                    path.chmod(path.stat().st_mode | 0o055)
            shutil.chown(self.directory, _USER)
        subprocess.run(
            [*self._as_user, self._bin / "initdb", "-D", self.data, "-U", "swift", "-A", "trust",
             "-E", "UTF8", "--locale", "C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        with (self.directory / "log").open("ab") as log:
            self.process = start(
                [*self._as_user, self._bin / "postgres", "-D", self.data, "-h", HOST,
                 "-p", self.port, "-k", "", "-c", "fsync=off"],
                stdout=log, stderr=subprocess.STDOUT, cwd="/")
        wait_until(lambda: self._psql("SELECT 1").returncode == 0, _START_TIMEOUT,
                   "PostgreSQL to answer")

    def stop(self, how=signal.SIGINT):
        """Ends the connections, and the server; SIGQUIT: as after a crash."""
        self.process.send_signal(how)
        self.process.wait(60)

    def database(self, name) -> str:
        """The SQLAlchemy URL of a new database; one of that name that is there goes."""
        self._psql('DROP DATABASE IF EXISTS "%s" WITH (FORCE)' % name)
        done = self._psql('CREATE DATABASE "%s"' % name)
        assert done.returncode == 0, done.stderr
        return "postgresql+psycopg2://swift@%s:%d/%s" % (HOST, self.port, name)

    def _psql(self, command):
        return subprocess.run(
            [self._bin / "psql", "-h", HOST, "-p", str(self.port), "-U", "swift", "-d",
             "template1", "-tAc", command], capture_output=True, text=True, cwd="/")
