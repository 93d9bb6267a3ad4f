"""Glance, with a store in sheep and one in plain files."""

from tests.functional.harness import HOST, free_port
from tests.openstack import settings
from tests.openstack.daemon import BIN, Daemon, run

#: The names of the stores.  (tempest wants the default one to sort first.)
SHEEP, FILES = "flock", "plain-files"


class Glance:
    """All of a cloud have one database; ``name``: of its directory.

    ``more``: ``{section: {option: value}}`` of its configuration.
    """

    def __init__(self, cloud, name, more=None):
        self._cloud = cloud
        self._more = more or {}
        self._directory = cloud.directory / name
        self._directory.mkdir()
        self.port = free_port()
        self.daemon = Daemon(
            name + "-api", settings.uwsgi(self.port, "glance.wsgi.api:application", 2),
            cloud.directory, self.port, {"OS_GLANCE_CONFIG_DIR": self._directory})

    @property
    def url(self) -> str:
        return "http://%s:%d" % (HOST, self.port)

    def prepare(self):
        """Write its configuration and make the tables."""
        manage = [BIN / "glance-manage", "--config-file", self.configure()]
        log = self._cloud.directory / "glance-manage.log"
        run([*manage, "db_sync"], log)
        run([*manage, "db_load_metadefs", settings.ETC / "glance" / "metadefs"], log)

    def configure(self):
        """Write its configuration; the path of the file."""
        cloud = self._cloud
        directories = {name: self._directory / name for name in ("staging", "tasks")}
        # This store all of them share.
        directories["files"] = cloud.directory / "image-files"
        for directory in directories.values():
            directory.mkdir(exist_ok=True)
        sections = {
            "DEFAULT": {
                "use_stderr": True,
                "enabled_backends": "%s:sheepdog, %s:file" % (SHEEP, FILES),
                # Cinder needs to know where an image lies to clone it.
                "show_image_direct_url": True,
                "enabled_import_methods": "[glance-direct,web-download,copy-image]",
                "worker_self_reference_url": self.url,
            },
            "glance_store": {"default_backend": SHEEP},
            SHEEP: {"sheepdog_store_addresses": ",".join(cloud.sheep.addresses),
                    "sheepdog_store_unfinished_age": 10},
            FILES: {"filesystem_store_datadir": directories["files"]},
            "os_glance_staging_store": {"filesystem_store_datadir": directories["staging"]},
            "os_glance_tasks_store": {"filesystem_store_datadir": directories["tasks"]},
            "database": {"connection": cloud.database.url("glance")},
            "keystone_authtoken": settings.credentials(cloud, "glance"),
            "paste_deploy": {"flavor": "keystone",
                             "config_file": settings.ETC / "glance" / "glance-api-paste.ini"},
            "oslo_concurrency": {"lock_path": cloud.directory / "locks"},
        }
        for name, options in self._more.items():
            sections[name] = {**sections.get(name, {}), **options}
        return settings.write(self._directory / "glance-api.conf", sections)
