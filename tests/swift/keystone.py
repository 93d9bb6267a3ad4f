"""Keystone on loopback, with its data in SQLite: who is who for a test."""

import getpass
import grp
import os
import pathlib
import subprocess
import sys

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client

from tests.functional.harness import HOST, free_port, start, wait_until
from tests.swift.service import is_listening

PASSWORD = "secret"
_REGION = "RegionOne"
_START_TIMEOUT = 120
_BIN = pathlib.Path(sys.executable).parent

_CONF = """\
[database]
connection = sqlite:///%(directory)s/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = %(directory)s/tokens
[credential]
key_repository = %(directory)s/credentials
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
"""

#: Keystone reads the command line, too: nothing must be left of it.
_SERVE = """
import sys
port, host = int(sys.argv.pop()), sys.argv.pop()
import waitress
from keystone.wsgi.api import application
waitress.serve(application, host=host, port=port, threads=1)
"""


class Keystone:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        self.process = None
        conf = self.directory / "keystone.conf"
        conf.write_text(_CONF % {"directory": self.directory})
        for name in ("tokens", "credentials"):
            (self.directory / name).mkdir(mode=0o700)
        we = ["--keystone-user", getpass.getuser(),
              "--keystone-group", grp.getgrgid(os.getegid()).gr_name]
        for command in (
                ["db_sync"], ["fernet_setup", *we], ["credential_setup", *we],
                ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", _REGION,
                 "--bootstrap-public-url", self.url, "--bootstrap-internal-url", self.url,
                 "--bootstrap-admin-url", self.url]):
            done = subprocess.run([_BIN / "keystone-manage", "--config-file", conf, *command],
                                  capture_output=True, text=True)
            assert done.returncode == 0, "%s\n%s" % (command, done.stderr[-4000:])

    @property
    def url(self) -> str:
        return "http://%s:%d/v3" % (HOST, self.port)

    def start(self):
        # One thread: SQLite is no database for many.
        with (self.directory / "log").open("ab") as log:
            self.process = start(
                [sys.executable, "-c", _SERVE, HOST, self.port],
                stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(self.directory)})

        def listening():
            assert self.process.poll() is None, (self.directory / "log").read_text()[-4000:]
            return is_listening(self.port)
        wait_until(listening, _START_TIMEOUT, "Keystone to listen")
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()

    def login(self, user, project):
        """A keystoneauth session of a user, whose password is PASSWORD."""
        return session.Session(auth=v3.Password(
            auth_url=self.url, username=user, password=PASSWORD, project_name=project,
            user_domain_id="default", project_domain_id="default"))

    def client(self) -> client.Client:
        """The administrator's."""
        return client.Client(session=self.login("admin", "admin"), region_name=_REGION)

    def add_user(self, name, project, *roles):
        """A user with these roles in a project, all of which are made where they are not there;
        (user, project)."""
        admin = self.client()
        found = {made.name: made for made in admin.projects.list()}
        where = found.get(project) or admin.projects.create(project, domain="default")
        user = admin.users.create(name, domain="default", password=PASSWORD,
                                  default_project=where)
        known = {made.name: made for made in admin.roles.list()}
        for role in roles:
            admin.roles.grant(known.get(role) or admin.roles.create(role), user=user,
                              project=where)
        return user, where
