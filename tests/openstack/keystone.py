"""Keystone: who is who, and where the other services are."""

import grp
import os
import pwd

import openstack

from tests.functional.harness import HOST, free_port
from tests.openstack import settings
from tests.openstack.daemon import BIN, Daemon, run
from tests.openstack.infrastructure import PASSWORD

#: The version of Cinder's API that is spoken: the newest one of the release.
VOLUME_API = "3.71"


class Keystone:
    def __init__(self, cloud):
        self._cloud = cloud
        self._directory = cloud.directory / "keystone"
        self._directory.mkdir()
        self._port = free_port()
        self.daemon = Daemon(
            "keystone", settings.uwsgi(self._port, "keystone.wsgi.api:application", 2),
            cloud.directory, self._port, {"OS_KEYSTONE_CONFIG_DIR": self._directory})

    @property
    def url(self) -> str:
        return "http://%s:%d/v3" % (HOST, self._port)

    def prepare(self):
        """Make its tables, its keys and its administrator."""
        keys = {name: self._directory / name for name in ("tokens", "credentials")}
        for directory in keys.values():
            directory.mkdir(mode=0o700)
        conf = settings.write(self._directory / "keystone.conf", {
            "DEFAULT": {"use_stderr": True},
            "database": {"connection": self._cloud.database.url("keystone")},
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": keys["tokens"]},
            "credential": {"key_repository": keys["credentials"]},
            "cache": {"enabled": True, "backend": "dogpile.cache.pymemcache",
                      "memcache_servers": self._cloud.cache.address},
            # Passwords need not be hard to guess here.
            "identity": {"password_hash_rounds": 4},
        })
        we = ["--keystone-user", pwd.getpwuid(os.geteuid()).pw_name,
              "--keystone-group", grp.getgrgid(os.getegid()).gr_name]
        for command in (
                ["db_sync"], ["fernet_setup", *we], ["credential_setup", *we],
                ["bootstrap", "--bootstrap-password", PASSWORD,
                 "--bootstrap-region-id", settings.REGION, "--bootstrap-public-url", self.url,
                 "--bootstrap-internal-url", self.url, "--bootstrap-admin-url", self.url]):
            run([BIN / "keystone-manage", "--config-file", conf, *command],
                self._cloud.directory / "keystone-manage.log")

    def environment(self) -> dict:
        """The variables from which the ``openstack`` command learns who we are."""
        return {
            "OS_AUTH_URL": self.url, "OS_AUTH_TYPE": "password", "OS_USERNAME": "admin",
            "OS_PASSWORD": PASSWORD, "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default", "OS_REGION_NAME": settings.REGION,
            "OS_IDENTITY_API_VERSION": "3", "OS_VOLUME_API_VERSION": VOLUME_API,
        }

    def connect(self):
        """The SDK's connection as the administrator."""
        return openstack.connect(
            auth_url=self.url, username="admin", password=PASSWORD, project_name="admin",
            user_domain_id="default", project_domain_id="default",
            region_name=settings.REGION, block_storage_default_microversion=VOLUME_API,
            load_yaml_config=False, load_envvars=False)

    def introduce(self, identity, services):
        """Make the project ``service``, and in it a user for each service, with its endpoint.

        ``services``: ``{user: (type, URL)}``.  Returns ids: of the project, and by name of the
        users.
        """
        project = identity.create_project(name="service", domain_id="default")
        roles = {role.name: role for role in identity.roles()}
        if "service" not in roles:
            roles["service"] = identity.create_role(name="service")
        users = {}
        for name, (kind, url) in services.items():
            user = users[name] = identity.create_user(
                name=name, domain_id="default", password=PASSWORD,
                default_project_id=project.id)
            for role in ("admin", "service"):
                identity.assign_project_role_to_user(project, user, roles[role])
            service = identity.create_service(type=kind, name=name)
            for interface in ("public", "internal", "admin"):
                identity.create_endpoint(service_id=service.id, interface=interface, url=url,
                                         region_id=settings.REGION)
        return project.id, {name: user.id for name, user in users.items()}
