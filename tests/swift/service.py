"""The object API as a process, with what it needs: memcached, and a database.

All listen on loopback, write into a directory of the test, and end with it.
"""

import getpass
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys

import requests

from tests.functional.harness import HOST, free_port, start, wait_until

START_TIMEOUT = 60

_ETC = pathlib.Path(__file__).resolve().parents[2] / "etc" / "sheepstack"

#: Every middleware of Swift, in the order of its sample configuration.
FULL_PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache domain_remap listing_formats "
    "etag-quoter container_sync bulk tempurl ratelimit crossdomain formpost s3api tempauth "
    "staticweb copy container-quotas account-quotas slo dlo versioned_writes symlink keymaster "
    "encryption proxy-logging proxy-server")

#: As people run it: without the ones that change what is stored.
USUAL_PIPELINE = FULL_PIPELINE.replace("etag-quoter ", "").replace("keymaster encryption ", "")

_USERS = """\
user_admin_admin = admin .admin .reseller_admin
user_admin_auditor = admin_ro .reseller_reader
user_test_tester = testing .admin
user_test_tester2 = testing2 .admin
user_test_tester3 = testing3
user_test2_tester2 = testing2 .admin
user_test5_tester5 = testing5 service
"""

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = changeme
swift_hash_path_suffix = changeme
[storage-policy:0]
name = gold
default = yes
[storage-policy:1]
name = silver
[swift-constraints]
max_file_size = 5368709122
"""

_PROXY_CONF = """\
[DEFAULT]
bind_ip = %(host)s
bind_port = %(port)d
workers = %(workers)d
user = %(user)s
swift_dir = %(directory)s
log_level = INFO

client_timeout = %(client_timeout)s
[pipeline:main]
pipeline = %(pipeline)s
[app:proxy-server]
use = egg:sheepstack#swift
allow_account_management = true
account_autocreate = true
allow_open_expired = true
sheep = %(sheep)s
state_dir = %(directory)s/state
%(options)s
[filter:tempauth]
use = egg:swift#tempauth
reseller_prefix = AUTH, SERVICE
SERVICE_require_group = service
%(users)s
[filter:s3api]
use = egg:swift#s3api
s3_acl = yes
check_bucket_owner = yes
allow_multipart_uploads = yes
[filter:cache]
use = egg:swift#memcache
memcache_servers = %(host)s:%(memcached)d
# A busy machine is no reason to take memcached for dead, and tokens for invalid.
connect_timeout = 20
pool_timeout = 20
io_timeout = 20
[filter:domain_remap]
use = egg:swift#domain_remap
storage_domain = example.net
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:etag-quoter]
use = egg:swift#etag_quoter
enable_by_default = true
[filter:status]
use = egg:sheepstack#swift_status
[filter:keymaster]
use = egg:swift#keymaster
encryption_root_secret = Y2hhbmdlbWVjaGFuZ2VtZWNoYW5nZW1lY2hhbmdlbWU=
%(filters)s
"""

_PLAIN_FILTERS = (
    "catch_errors", "gatekeeper", "healthcheck", "proxy-logging", "listing_formats",
    "container_sync", "bulk", "tempurl", "ratelimit", "crossdomain", "formpost", "staticweb",
    "copy", "container-quotas", "account-quotas", "slo", "dlo", "symlink", "encryption")


class Memcached:
    def __init__(self):
        self.port = free_port()
        self.process = start(
            ["memcached", "-u", "nobody", "-l", HOST, "-p", self.port, "-U", "0"])
        wait_until(lambda: is_listening(self.port), START_TIMEOUT, "memcached to listen")

    def close(self):
        self.process.kill()
        self.process.wait()


class ObjectApi:
    """``sheep``: addresses of gateways.  ``options``: lines for the application's section.
    ``wrapper``: a command that starts another one."""

    def __init__(self, directory, sheep, memcached, *, options=(), pipeline=FULL_PIPELINE,
                 workers=1, client_timeout=60, port=None, wrapper=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = "http://%s:%d" % (HOST, self.port)
        self.log = self.directory / "sheep-swift.log"
        self.process = None
        self._wrapper = wrapper
        (self.directory / "swift.conf").write_text(_SWIFT_CONF)
        self.config = self.directory / "proxy-server.conf"
        self.config.write_text(_PROXY_CONF % {
            "host": HOST, "port": self.port, "workers": workers, "directory": self.directory,
            "user": getpass.getuser(), "client_timeout": client_timeout,
            "pipeline": pipeline, "sheep": ",".join(sheep), "options": "\n".join(options),
            "users": _USERS, "memcached": memcached.port,
            "filters": "\n".join(
                "[filter:%s]\nuse = egg:swift#%s" % (name, name.replace("-", "_"))
                for name in _PLAIN_FILTERS)})

    def take_sample(self, name, sheep, memcached, *changes):
        """Configure it as ``etc/sheepstack/<name>`` says, with what must be other here and
        ``changes``, pairs of texts; each text must be in the sample."""
        sample = (_ETC / name).read_text()
        for old, new in (
                ("bind_port = 8080", "bind_port = %d" % self.port),
                ("workers = 2", "workers = 1"),
                ("user = swift\n", "user = %s\n" % getpass.getuser()),
                ("swift_dir = /etc/swift", "swift_dir = %s" % self.directory),
                ("192.0.2.11:7000,192.0.2.12:7000,192.0.2.13:7000", ",".join(sheep)),
                ("#state_dir = /var/lib/sheep-swift", "state_dir = %s/state" % self.directory),
                ("127.0.0.1:11211", "127.0.0.1:%d" % memcached.port), *changes):
            assert old in sample, old
            # The user of the process, not the one that authtoken logs in as.
            sample = sample.replace(old, new, 1 if old.startswith("user = ") else -1)
        self.config.write_text(sample)
        (self.directory / "swift.conf").write_text((_ETC / "swift.conf.sample").read_text())

    def start(self):
        with self.log.open("ab") as log:
            self.process = start(
                [*self._wrapper, sys.executable, "-m", "swift_middleware.cmd.main", "serve",
                 "-c", self.config], stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)
        self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, "sheep-swift ended:\n%s" % self.tail()
            try:
                return requests.get(self.url + "/healthcheck", timeout=10).ok
            except requests.RequestException:
                return False
        wait_until(ready, START_TIMEOUT, lambda: "sheep-swift to answer; %s" % self.tail())

    def run(self, *args, check=True):
        """Run another action of the command; its result."""
        done = subprocess.run(
            [sys.executable, "-m", "swift_middleware.cmd.main", *args, "-c", self.config],
            capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def workers(self) -> list:
        """Their process ids."""
        pid = self.process.pid
        return [int(number) for number in pathlib.Path(
            "/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]

    def peak(self) -> int:
        """Bytes of memory that the largest of its workers has had at most."""
        peaks = []
        for pid in self.workers:
            fields = dict(line.split(":", 1) for line in pathlib.Path(
                "/proc/%d/status" % pid).read_text().splitlines())
            peaks.append(int(fields["VmHWM"].split()[0]) << 10)
        return max(peaks)

    def tail(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(line[:2000] for line in text.splitlines()[-lines:])

    def kill(self):
        """SIGKILL for all of its processes at once."""
        self._signal(signal.SIGKILL)

    def stop(self):
        self._signal(signal.SIGTERM)

    def _signal(self, number):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass
            self.process.wait(30)
            self.process = None


class Account:
    """An account as its owner uses it, by HTTP."""

    def __init__(self, url, user="test:tester", key="testing"):
        self.session = requests.Session()
        answer = requests.get(url + "/auth/v1.0", timeout=60,
                              headers={"X-Auth-User": user, "X-Auth-Key": key})
        answer.raise_for_status()
        self.url = answer.headers["X-Storage-Url"]
        self.token = answer.headers["X-Auth-Token"]

    def ask(self, method, path="", headers=None, **options):
        options.setdefault("timeout", 60)
        return self.session.request(
            method, self.url + path, headers={"X-Auth-Token": self.token, **(headers or {})},
            **options)

    def made(self, path, headers=None, data=b""):
        """PUT what must succeed; the answer."""
        answer = self.ask("PUT", path, headers, data=data)
        assert answer.ok, "%s: %d %s" % (path, answer.status_code, answer.text)
        return answer

    def new_container(self, **headers):
        name = "/c" + secrets.token_hex(6)
        self.made(name, {key.replace("_", "-"): value for key, value in headers.items()})
        return name


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
