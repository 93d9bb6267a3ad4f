"""Glance, with a store in sheep and one in plain files."""

from tests.functional.harness import HOST, free_port
from tests.openstack import settings
from tests.openstack.daemon import BIN, Daemon, run

#: The names of the stores.  (tempest wants the default one to sort first.)
SHEEP, FILES = "flock", "plain-files"


class Glance:
    def __init__(self, cloud):
        self._cloud = cloud
        self._directory = cloud.directory / "glance"
        self._directory.mkdir()
        self.port = free_port()
        self.daemon = Daemon(
            "glance-api", settings.uwsgi(self.port, "glance.wsgi.api:application", 2),
            cloud.directory, self.port, {"OS_GLANCE_CONFIG_DIR": self._directory})

    @property
    def url(self) -> str:
        return "http://%s:%d" % (HOST, self.port)

    def prepare(self):
        cloud = self._cloud
        directories = {name: self._directory / name for name in ("files", "staging", "tasks")}
        for directory in directories.values():
            directory.mkdir()
        conf = settings.write(self._directory / "glance-api.conf", {
            "DEFAULT": {
                "use_stderr": True,
                "enabled_backends": "%s:sheepdog, %s:file" % (SHEEP, FILES),
                # Cinder needs to know where an image lies to clone it.
                "show_image_direct_url": True,
                "enabled_import_methods": "[glance-direct,web-download,copy-image]",
                "worker_self_reference_url": self.url,
            },
            "glance_store": {"default_backend": SHEEP},
            SHEEP: {"sheepdog_store_addresses": ",".join(cloud.sheep.addresses)},
            FILES: {"filesystem_store_datadir": directories["files"]},
            "os_glance_staging_store": {"filesystem_store_datadir": directories["staging"]},
            "os_glance_tasks_store": {"filesystem_store_datadir": directories["tasks"]},
            "database": {"connection": cloud.database.url("glance")},
            "keystone_authtoken": settings.credentials(cloud, "glance"),
            "paste_deploy": {"flavor": "keystone",
                             "config_file": settings.ETC / "glance" / "glance-api-paste.ini"},
            "oslo_concurrency": {"lock_path": cloud.directory / "locks"},
        })
        manage = [BIN / "glance-manage", "--config-file", conf]
        log = cloud.directory / "glance-manage.log"
        run([*manage, "db_sync"], log)
        run([*manage, "db_load_metadefs", settings.ETC / "glance" / "metadefs"], log)
