"""What OpenStack's services lean on: MariaDB, RabbitMQ and memcached, all on loopback."""

import os

from tests.functional.harness import HOST, free_port
from tests.openstack.daemon import Daemon, run

PASSWORD = "secret"
_ROOT = ("--user=root",) if os.geteuid() == 0 else ()


class Database:
    """MariaDB with a database, and a user of its name, for each service."""

    def __init__(self, directory):
        self._directory = directory
        self._data = directory / "mariadb"
        self._socket = directory / "mariadb.sock"
        self.port = free_port()
        # What a crash of this host would lose nobody misses.
        self.daemon = Daemon("mariadb", [
            "mariadbd", "--no-defaults", *_ROOT, "--datadir=%s" % self._data,
            "--socket=%s" % self._socket, "--bind-address=" + HOST, "--port=%d" % self.port,
            "--max-connections=500", "--innodb-flush-log-at-trx-commit=0",
            "--character-set-server=utf8mb3"], directory, self.port)

    def start(self, names):
        run(["mariadb-install-db", "--no-defaults", *_ROOT, "--datadir=%s" % self._data,
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            self._directory / "mariadb-install.log")
        self.daemon.start().wait_ready()
        self.execute("".join(
            "CREATE DATABASE {0}; GRANT ALL ON {0}.* TO '{0}'@'{1}' IDENTIFIED BY '{2}';"
            .format(name, host, PASSWORD) for name in names for host in (HOST,)))

    def execute(self, statements):
        """Carry out SQL statements, which name the database they are about."""
        run(["mariadb", "--no-defaults", "-uroot", "-S", self._socket, "-e", statements],
            self._directory / "mariadb-install.log")

    def url(self, name) -> str:
        return "mysql+pymysql://%s:%s@%s:%d/%s?charset=utf8mb3" % (
            name, PASSWORD, HOST, self.port, name)


class MessageQueue:
    """RabbitMQ, with an epmd of its own that lets no other node in."""

    def __init__(self, directory):
        home = directory / "rabbitmq"
        home.mkdir()
        (home / "plugins").write_text("[].\n")
        self.port = free_port()
        (home / "rabbitmq.conf").write_text(
            "default_user = openstack\ndefault_pass = %s\nlisteners.tcp.default = %s:%d\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            % (PASSWORD, HOST, self.port))
        epmd_port = free_port()
        self.epmd = Daemon("epmd", ["epmd", "-address", HOST, "-port", epmd_port], directory,
                           epmd_port)
        self.daemon = Daemon(
            "rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], directory, self.port, {
                "HOME": home,
                # It becomes the Erlang machine then, and does not stay its parent.
                "RUNNING_UNDER_SYSTEMD": "true",
                "RABBITMQ_NODENAME": "sheepstack@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": HOST,
                "RABBITMQ_NODE_PORT": self.port,
                "RABBITMQ_DIST_PORT": free_port(),
                "RABBITMQ_MNESIA_BASE": home / "mnesia",
                "RABBITMQ_LOG_BASE": home,
                "RABBITMQ_PID_FILE": home / "pid",
                "RABBITMQ_CONFIG_FILE": home / "rabbitmq.conf",
                "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins",
                "RABBITMQ_CONF_ENV_FILE": "/dev/null",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                    "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
                "ERL_EPMD_ADDRESS": HOST,
                "ERL_EPMD_PORT": epmd_port,
            })

    def start(self):
        self.epmd.start().wait_ready()
        self.daemon.start().wait_ready()

    @property
    def url(self) -> str:
        return "rabbit://openstack:%s@%s:%d/" % (PASSWORD, HOST, self.port)


class Cache:
    """memcached: without it every request to Keystone computes its token anew."""

    def __init__(self, directory):
        self.port = free_port()
        user = ["-u", "root"] if os.geteuid() == 0 else []
        self.daemon = Daemon("memcached", [
            "memcached", *user, "-l", HOST, "-p", self.port, "-m", "64"], directory, self.port)

    def start(self):
        self.daemon.start().wait_ready()

    @property
    def address(self) -> str:
        return "%s:%d" % (HOST, self.port)
