"""A MariaDB server of a test's own."""

import os
import pathlib
import signal
import subprocess

from tests.functional.harness import HOST, free_port, start, wait_until

_START_TIMEOUT = 60
_PASSWORD = "secret"


class MariaDB:
    """Keeps its data below ``directory``."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        self.process = None
        self._socket = self.directory / "sock"
        self._user = ["--user=root"] if os.geteuid() == 0 else []
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *self._user,
             "--datadir=%s" % self._data, "--auth-root-authentication-method=normal",
             "--skip-test-db"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def _data(self):
        return self.directory / "data"

    def start(self):
        with (self.directory / "log").open("ab") as log:
            self.process = start(
                ["mariadbd", "--no-defaults", *self._user, "--datadir=%s" % self._data,
                 "--socket=%s" % self._socket, "--bind-address=" + HOST,
                 "--port=%d" % self.port, "--innodb-flush-log-at-trx-commit=0"],
                stdout=log, stderr=subprocess.STDOUT)
        wait_until(lambda: self._run("SELECT 1").returncode == 0, _START_TIMEOUT,
                   "MariaDB to answer")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def database(self, name) -> str:
        """The SQLAlchemy URL of a new database; one of that name that is there goes."""
        done = self._run(
            "DROP DATABASE IF EXISTS {0}; CREATE DATABASE {0};"
            "GRANT ALL ON {0}.* TO '{0}'@'{1}' IDENTIFIED BY '{2}'".format(
                name, HOST, _PASSWORD))
        assert done.returncode == 0, done.stderr
        return "mysql+pymysql://%s:%s@%s:%d/%s?charset=utf8mb4" % (
            name, _PASSWORD, HOST, self.port, name)

    def _run(self, statements):
        return subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", "-S", self._socket, "-e", statements],
            capture_output=True, text=True)
