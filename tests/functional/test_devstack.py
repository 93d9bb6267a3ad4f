"""The DevStack plugin goes through its phases, with real sheep and a real ZooKeeper.

Set DEVSTACK_DIR to a clone of DevStack, and its own functions are used; shims otherwise.
``systemctl``, ``sudo`` and what installs packages are stand-ins in any case.
"""

import configparser
import importlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from oslo_config import cfg

from sheepstack.client import Cluster
from tests.functional.harness import HOST, free_port

TOP = pathlib.Path(__file__).resolve().parents[2]
PLUGIN = TOP / "devstack"
HERE = pathlib.Path(__file__).parent / "devstack"
SCRIPTS = [PLUGIN / "plugin.sh", PLUGIN / "settings", PLUGIN / "override-defaults",
           PLUGIN / "lib" / "sheepstack", HERE / "phases.sh", HERE / "shims",
           HERE / "real_devstack.sh"]
STACK = ("stack:pre-install", "configure_swift", "configure_glance", "configure_cinder",
         "stack:install", "stack:post-config", "stack:extra", "stack:test-config")


class Host:
    """What DevStack would do to a host, below ``root``."""

    def __init__(self, root, zookeeper, **settings):
        self.root = root
        self.ports = [free_port() for _ in range(2)]
        # Sheep have ports one after the other.
        while self.ports[1] != self.ports[0] + 1:
            self.ports = [self.ports[1], free_port()]
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(root), "ROOT": str(root),
            "DEVSTACK_DIR": os.environ.get("DEVSTACK_DIR", ""),
            "DEVSTACK_VENV": sys.prefix, "SHEEPSTACK_DIR": str(TOP),
            "SHEEPSTACK_CONF_DIR": str(root / "etc" / "sheepstack"),
            "SHEEPSTACK_ZOOKEEPER": zookeeper.address,
            "SHEEPSTACK_CLUSTER_ID": "devstack-%d" % self.ports[0],
            "SHEEPSTACK_NODES": "2", "SHEEPSTACK_PORT_BASE": str(self.ports[0]), **settings}

    def run(self, *steps, status=0) -> str:
        """What the phases printed."""
        done = subprocess.run(
            ["bash", str(HERE / "phases.sh"), *steps], env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=300)
        assert done.returncode == status, done.stdout[-6000:]
        return done.stdout

    def conf(self, name) -> configparser.RawConfigParser:
        parser = configparser.RawConfigParser(default_section=" ")
        assert parser.read(self.root / "etc" / name)
        return parser

    @property
    def auth_key(self) -> pathlib.Path:
        return self.root / "etc" / "sheepstack" / "key"

    def client(self) -> Cluster:
        return Cluster(["%s:%d" % (HOST, port) for port in self.ports],
                       auth_key=self.auth_key.read_bytes(), timeout=10)

    def processes(self) -> list:
        return [int(path.read_text()) for path in (self.root / "systemd").glob("*.pid")]

    def close(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture
def make_host(tmp_path, zookeeper):
    hosts = []

    def make(**settings):
        hosts.append(Host(tmp_path / ("host%d" % len(hosts)), zookeeper, **settings))
        hosts[-1].root.mkdir()
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def read_with(module, conf, section):
    """The options of ``section`` as the driver that has ``module`` reads them.

    What only looks like an option of ours fails.
    """
    options = importlib.import_module(module).OPTIONS
    ours = {name for name in conf[section] if name.startswith("sheep")}
    assert ours and ours <= {option.dest for option in options}, ours
    parser = cfg.ConfigOpts()
    parser.register_opts(options, group=section)
    parser([], default_config_files=[], default_config_dirs=[])
    for option in options:
        if option.name in conf[section]:
            parser.set_override(option.name, option.type(conf[section][option.name]), section)
    return parser[section]


def defines(name, kind) -> bool:
    """Whether a module has a class or function, named as in Python or in a paste file."""
    module, _, word = name.replace(":", ".").rpartition(".")
    source = (TOP / module.replace(".", "/")).with_suffix(".py").read_text()
    return "%s %s(" % (kind, word) in source


def test_scripts_are_sound():
    for script in SCRIPTS:
        subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("bashate"), "-v", "-i", "E006", "-e", "E005,E042",
         *SCRIPTS],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_setting_can_be_overridden():
    for name in ("settings", "override-defaults"):
        for line in (PLUGIN / name).read_text().splitlines():
            found = re.match(r"\s*([A-Z_]+)=(.*)", line)
            if found:
                name, value = found.groups()
                assert value.startswith("${%s:-" % name) or \
                    re.fullmatch(r"\$\(trueorfalse (True|False) %s\)" % name, value), line


def test_the_job_is_a_job():
    jobs = yaml.safe_load((TOP / ".zuul.yaml").read_text())
    job, = [each["job"] for each in jobs if "job" in each]
    assert job["parent"] == "devstack-tempest"
    assert set(job["vars"]["devstack_plugins"]) == {"sheepstack"}
    chosen = re.compile(job["vars"]["tempest_test_regex"])
    for name in ("tempest.api.volume.test_volumes_get.VolumesGetTest.test_it[id-1,smoke]",
                 "tempest.api.object_storage.test_object_services.ObjectTest.test_it[id-2]",
                 "tempest.scenario.test_volume_boot_pattern.TestVolumeBootPattern.test_it",
                 "cinder_tempest_plugin.api.volume.test_backup.BackupTest.test_it"):
        assert chosen.search(name)
    assert not chosen.search("tempest.api.volume.test_x.X.test_it[id-3,slow]")
    assert not chosen.search("tempest.api.compute.test_x.X.test_it[id-4]")
    project, = [each["project"] for each in jobs if "project" in each]
    assert project["check"]["jobs"] == [job["name"]]


def test_a_stack_comes_up_and_goes(make_host, zookeeper):
    host = make_host()
    host.run(*STACK)
    assert len(host.processes()) == 2
    with host.client() as client:
        assert len(client.nodes()) == 2 and client.defaults().copies == 2
        client.create_vdi("disk", 1 << 24)
        with client.open_vdi("disk") as vdi:
            vdi.pwrite(0, b"stacked")

    addresses = ["%s:%d" % (HOST, port) for port in host.ports]
    cinder = host.conf("cinder/cinder.conf")
    backend = read_with("cinder_driver.options", cinder, "sheepstack")
    assert backend.sheepdog_addresses == addresses
    assert backend.sheepdog_auth_key_file == str(host.auth_key)
    assert os.path.exists(backend.sheepdog_iscsi_gateway.removeprefix("unix:"))
    assert defines(cinder["sheepstack"]["volume_driver"], "class")
    assert defines(cinder["DEFAULT"]["backup_driver"], "class")
    assert cinder["DEFAULT"]["backup_sheepdog_addresses"] == ",".join(addresses)
    assert (host.root / "etc" / "cinder" / "rootwrap.d" / "sheepstack.filters").exists()

    glance = host.conf("glance/glance-api.conf")
    assert glance["glance_store"]["default_store"] == "sheepdog"
    assert "sheepdog" in glance["glance_store"]["stores"].split(", ")
    store = read_with("glance_store_driver.options", glance, "glance_store")
    assert store.sheepdog_store_addresses == addresses

    swift = host.conf("swift/proxy-server.conf")
    assert read_with("swift_middleware.config", swift, "app:proxy-server").sheep == addresses
    egg, _, name = swift["app:proxy-server"]["use"].removeprefix("egg:").partition("#")
    entry, = importlib.metadata.entry_points(group="paste.app_factory", name=name)
    assert entry.dist.name == egg and defines(entry.value, "def")

    assert host.conf("tempest.conf")["volume-feature-enabled"]["manage_volume"] == "True"

    # Another stack on what an earlier one left.
    host.run("unstack")
    assert host.processes() == []
    host.run("stack:install")
    with host.client() as client, client.open_vdi("disk") as vdi:
        assert vdi.pread(0, 7) == b"stacked"

    host.run("unstack", "clean")
    assert host.processes() == []
    assert not os.path.exists(host.environment["SHEEPSTACK_CONF_DIR"])
    assert not (host.root / "data" / "sheepstack").exists()
    with zookeeper.client() as client:
        assert client.exists("/sheepstack")
        assert not client.exists("/sheepstack/" + host.environment["SHEEPSTACK_CLUSTER_ID"])


def test_what_is_not_wanted_is_left_alone(make_host):
    host = make_host(ENABLE_SHEEPSTACK_CINDER="False", ENABLE_SHEEPSTACK_C_BAK="False",
                     ENABLE_SHEEPSTACK_GLANCE="False", ENABLE_SHEEPSTACK_SWIFT="False",
                     CINDER_ENABLED_BACKENDS="lvm:lvmdriver-1")
    (host.root / "etc").mkdir()
    out = host.run("stack:post-config", "stack:test-config")
    assert "Pointing services" in out
    assert not [path for path in (host.root / "etc").rglob("*") if path.is_file()
                and "sheep" in path.read_text()]


def test_more_copies_than_sheep_are_refused(make_host):
    host = make_host(SHEEPSTACK_COPIES="3")
    assert "3 copies need as many sheep, not 2" in host.run("stack:pre-install", status=1)


@pytest.mark.skipif(not shutil.which("fusermount3") or os.geteuid() != 0,
                    reason="no fusermount3, or not root")
def test_sheepfs_is_mounted_for_local_volumes(make_host):
    host = make_host(SHEEPSTACK_CINDER_PROTOCOL="local")
    host.run("configure_cinder", "stack:install")
    mount_point = pathlib.Path(
        host.conf("cinder/cinder.conf")["sheepstack"]["sheepdog_mount_point"])
    assert (mount_point / "vdi" / "mount").exists()
    host.run("unstack")
    assert not os.path.ismount(mount_point)
