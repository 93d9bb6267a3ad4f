"""Cinder: the API, the scheduler, the backup service, and three volume services on the sheep.

One of these runs on eventlet, as Cinder does by default, the others on native threads.  The third
one replicates its volumes to another cluster.
"""

import contextlib

from tests.functional.harness import HOST, free_port, wait_until
from tests.openstack import settings
from tests.openstack.daemon import BIN, START_TIMEOUT, Daemon, run
from tests.openstack.keystone import VOLUME_API

#: The backends, which are also the names of volume types.
GREEN, THREADS, REPLICATED = "green", "threads", "replicated"
#: A volume type whose volumes have two copies; those of the others have three.
TWO_COPIES = "two-copies"

#: A backend that two volume services share, which are started where they are wanted.
SHARED = "shared"

_NAME = "loopback"
_PATCHING = {GREEN: "false", THREADS: "true", REPLICATED: "true"}
#: What the second cluster is called as a replication target.
SECOND = "second"
#: The backend that replicates has the name of its pool, as tempest believes to be the case.
_REPLICATED_POOL = "copies-3"


class Cinder:
    def __init__(self, cloud):
        self._cloud = cloud
        self._directory = cloud.directory / "cinder"
        self._directory.mkdir()
        self._conf = self._directory / "cinder.conf"
        self.port = free_port()
        self.api = self._service("cinder-api", settings.uwsgi(
            self.port, "cinder.wsgi.api:application", 2,
            "--pyargv", "--config-file %s" % self._conf), self.port)
        self.scheduler = self._command("cinder-scheduler")
        self.backup = self._command("cinder-backup")
        self.volume = {
            name: self._command(
                "cinder-volume", "cinder-volume-" + name,
                "--config-file", self._directory / ("%s.conf" % name),
                OS_CINDER_DISABLE_EVENTLET_PATCHING=patching)
            for name, patching in _PATCHING.items()}

    def _command(self, program, name=None, *options, **environment):
        return self._service(name or program, [
            BIN / program, "--config-file", self._conf, *options], None, environment)

    def _service(self, name, argv, port, environment=None):
        return Daemon(name, argv, self._cloud.directory, port, environment)

    @property
    def daemons(self) -> list:
        return [self.api, self.scheduler, *self.volume.values(), self.backup]

    @property
    def url(self) -> str:
        return "http://%s:%d/v3" % (HOST, self.port)

    def prepare(self):
        """Make the tables."""
        self._write()
        run([BIN / "cinder-manage", "--config-file", self._conf, "db", "sync"],
            self._cloud.directory / "cinder-manage.log")

    def _write(self, **more):
        cloud = self._cloud
        addresses = ",".join(cloud.sheep.addresses)
        for name in ("state", "conversion"):
            (self._directory / name).mkdir(exist_ok=True)
        helper = "%s --config-file %s" % (BIN / "privsep-helper", self._conf)
        backends = {name: {
            "volume_driver": "cinder_driver.driver.SheepdogDriver",
            "volume_backend_name": name,
            "sheepdog_addresses": addresses,
            "sheepdog_pools": pools,
            # A cinder-volume that was killed has no other way to clear away.
            "sheepdog_leftovers_age": 20,
            "image_volume_cache_enabled": True,
        } for name, pools in ((GREEN, "3,2"), (THREADS, "3"), (REPLICATED, "3"))}
        if cloud.mount_point is not None:
            # Its hosts see volumes as files, which is all that Cinder needs to clone one that
            # is encrypted.
            backends[THREADS].update({
                "sheepdog_protocol": "local", "sheepdog_mount_point": cloud.mount_point})
        backends[SHARED] = {**backends[GREEN], "volume_backend_name": SHARED}
        backends[REPLICATED].update({
            "volume_backend_name": _REPLICATED_POOL,
            # What is shipped at a change-over is what the tests look at.
            "sheepdog_replication_interval": 3600,
            "replication_device": "backend_id:%s,addresses:%s" % (
                SECOND, " ".join(cloud.second.addresses)),
        })
        service = settings.credentials(cloud, "cinder")
        settings.write(self._conf, {
            "DEFAULT": {
                "use_stderr": True,
                "host": _NAME,
                "my_ip": HOST,
                "state_path": self._directory / "state",
                "transport_url": cloud.queue.url,
                "auth_strategy": "keystone",
                "default_volume_type": GREEN,
                "glance_api_servers": cloud.glance.url,
                "api_paste_config": settings.ETC / "cinder" / "api-paste.ini",
                "resource_query_filters_file": settings.ETC / "cinder" / "resource_filters.json",
                "rootwrap_config": settings.ETC / "cinder" / "rootwrap.conf",
                "image_conversion_dir": self._directory / "conversion",
                "periodic_fuzzy_delay": 0,
                "backup_driver": "cinder_driver.backup.SheepdogBackupDriver",
                "backup_sheepdog_addresses": addresses,
                "volume_clear": "none",
                **more,
            },
            **backends,
            "database": {"connection": cloud.database.url("cinder")},
            "keystone_authtoken": service,
            "service_user": {"send_service_user_token": True, **service},
            "key_manager": {"backend": "cinder.keymgr.conf_key_mgr.ConfKeyManager",
                            "fixed_key": "0123456789abcdef" * 4},
            "oslo_concurrency": {"lock_path": cloud.directory / "locks"},
            "coordination": {"backend_url": "file://%s" % (self._directory / "coordination")},
            "cinder_sys_admin": {"helper_command": helper},
            "privsep_osbrick": {"helper_command": helper},
        })
        for name in self.volume:
            settings.write(self._directory / ("%s.conf" % name),
                           {"DEFAULT": {"enabled_backends": name}})

    @contextlib.contextmanager
    def cluster(self, block_storage):
        """Two volume services, active both, for the backend and volume type SHARED, which end
        with the block: their Daemons."""
        daemons = {}
        for name, patching in (("one", "false"), ("two", "true")):
            path = self._directory / ("%s.conf" % name)
            settings.write(path, {"DEFAULT": {
                "host": name, "cluster": "pair", "enabled_backends": SHARED}})
            daemons["%s@%s" % (name, SHARED)] = self._command(
                "cinder-volume", "cinder-volume-" + name, "--config-file", path,
                OS_CINDER_DISABLE_EVENTLET_PATCHING=patching).start()

        def have_all(word):
            for host in daemons:
                block_storage.put("/os-services/" + word, json={
                    "host": host, "binary": "cinder-volume"}).raise_for_status()

        try:
            self._wait_services(block_storage, {("cinder-volume", host) for host in daemons})
            # They report before the queue of their cluster is there, and what is sent to none
            # is lost.
            wait_until(lambda: all("post RPC initialization completed" in daemon.log_text()
                                   for daemon in daemons.values()),
                       START_TIMEOUT, "both to take requests")
            have_all("enable")
            yield list(daemons.values())
        finally:
            for daemon in daemons.values():
                if daemon.running:
                    daemon.kill()
            # They would be thought of as alive for a while.
            have_all("disable")

    def start(self, project_id, user_id):
        """``project_id``, ``user_id``: who owns the images that Cinder keeps for itself."""
        self._write(cinder_internal_tenant_project_id=project_id,
                    cinder_internal_tenant_user_id=user_id)
        for daemon in self.daemons:
            daemon.start()
        self.api.wait_ready()

    def make_ready(self, block_storage):
        """Make the volume types, lift the quotas and wait until all services report."""
        block_storage.put("/os-quota-class-sets/default", json={"quota_class_set": dict.fromkeys(
            ("volumes", "snapshots", "backups", "gigabytes", "backup_gigabytes", "groups"),
            100000)}).raise_for_status()
        for name, specs in (
                (GREEN, {"volume_backend_name": GREEN, "sheepdog_copy_policy": "3"}),
                (TWO_COPIES, {"volume_backend_name": GREEN, "sheepdog_copy_policy": "2"}),
                (THREADS, {"volume_backend_name": THREADS}),
                (SHARED, {"volume_backend_name": SHARED}),
                (REPLICATED, {"volume_backend_name": _REPLICATED_POOL,
                              "replication_enabled": "<is> True"})):
            block_storage.create_type(name=name, extra_specs=specs)
        self.wait_up(block_storage)

    @staticmethod
    def service(block_storage, backend) -> dict:
        """What the API says of the volume service of a backend."""
        answer = block_storage.get("/os-services", params={"binary": "cinder-volume"},
                                   microversion=VOLUME_API)
        host = "%s@%s" % (_NAME, backend)
        return next(each for each in answer.json()["services"] if each["host"] == host)

    def wait_reported(self, block_storage, backend):
        """Wait until the volume service of a backend, just started, is at work."""
        host = "%s@%s" % (_NAME, backend)

        def updated():
            return next(service.updated_at for service in block_storage.services()
                        if service.host == host)

        before = updated()
        wait_until(lambda: updated() != before, START_TIMEOUT, "%s to report" % host)

    def wait_up(self, block_storage):
        self._wait_services(block_storage, {
            ("cinder-scheduler", _NAME), ("cinder-backup", _NAME)} | {
            ("cinder-volume", "%s@%s" % (_NAME, name)) for name in self.volume})

    @staticmethod
    def _wait_services(block_storage, wanted):
        def are_up():
            return wanted <= {(service.binary, service.host)
                              for service in block_storage.services() if service.state == "up"}

        wait_until(are_up, START_TIMEOUT, "Cinder's services to be up")
