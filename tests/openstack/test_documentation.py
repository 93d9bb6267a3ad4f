"""The configurations in the documentation, pasted: real services run on them."""

import itertools
import pathlib
import shutil
import socket

import pytest

from tests.functional.harness import HOST, free_port, wait_until
from tests.openstack import settings
from tests.openstack.daemon import BIN, START_TIMEOUT, Daemon, run
from tests.openstack.flow import Flow
from tests.openstack.infrastructure import PASSWORD

_PAGES = pathlib.Path(__file__).parents[2] / "doc" / "source"
_SHEEP = "192.0.2.11:7000, 192.0.2.12:7000, 192.0.2.13:7000"


def pasted(page, cloud, directory):
    """The first configuration of a page, with what a reader has to replace replaced."""
    lines = (_PAGES / page).read_text().splitlines()
    block = itertools.takewhile(lambda line: not line or line.startswith("    "),
                                lines[lines.index("    [DEFAULT]"):])
    # The cluster has no secret: the pages say that this line is left out then.
    text = "\n".join(line.strip() for line in block
                     if "auth_key_file" not in line and not line.strip().startswith("#"))
    sheep = ",".join(cloud.sheep.addresses)
    for documented, ours in (
            (_SHEEP, sheep), (_SHEEP.replace(" ", ""), sheep),
            ("192.0.2.81:7000, 192.0.2.82:7000", sheep),
            ("rabbit://openstack:PASSWORD@192.0.2.1:5672/", cloud.queue.url),
            ("http://192.0.2.1:5000/v3", cloud.keystone.url),
            ("http://192.0.2.1:9292", cloud.glance.url),
            ("@192.0.2.1/", "@%s:%d/" % (HOST, cloud.database.port)),
            ("192.0.2.11", HOST), ("198.51.100.11", "127.0.0.2"),
            ("PASSWORD", PASSWORD), ("/var/lib/", "%s/" % directory)):
        text = text.replace(documented, ours)
    assert "192.0.2." not in text
    return text


def test_glance(cloud, tmp_path):
    text = pasted("glance.rst", cloud, tmp_path)
    (tmp_path / "glance-api.conf").write_text(text)
    shutil.copy(settings.ETC / "glance" / "glance-api-paste.ini", tmp_path)
    for name in ("staging", "tasks"):
        (tmp_path / "glance" / name).mkdir(parents=True)
    port = free_port()
    daemon = Daemon("glance-documented", settings.uwsgi(
        port, "glance.wsgi.api:application", 1), tmp_path, port,
        {"OS_GLANCE_CONFIG_DIR": tmp_path})
    images = cloud.connection.image
    image = images.create_image("pasted", disk_format="raw", container_format="bare",
                                allow_duplicates=True)
    url = "http://%s:%d/v2/images/%s" % (HOST, port, image.id)
    daemon.start().wait_ready()
    try:
        images.put(url + "/file", data=b"pasted", headers={
            "Content-Type": "application/octet-stream"}).raise_for_status()
        assert images.get(url + "/file").content == b"pasted"
        assert images.get(url).json()["direct_url"].startswith("sheepdog://")
        images.delete(url).raise_for_status()
    finally:
        daemon.kill()


@pytest.fixture
def cinder_volume(cloud, tmp_path):
    """A cinder-volume that knows what the page says, and where to keep its state."""
    conf, state = tmp_path / "cinder.conf", tmp_path / "state.conf"
    conf.write_text(pasted("cinder.rst", cloud, tmp_path))
    state.write_text("[DEFAULT]\nstate_path = %s/cinder\nuse_stderr = true\n" % tmp_path)
    files = ["--config-file", conf, "--config-file", state]
    daemon = Daemon("cinder-volume-documented", [BIN / "cinder-volume", *files], tmp_path, None)
    daemon.start()
    yield daemon
    daemon.kill()
    # It must not be thought of as alive any longer.
    run([BIN / "cinder-manage", *files, "service", "remove", "cinder-volume",
         socket.gethostname() + "@sheep"], tmp_path / "cinder-manage.log")


def test_cinder(cloud, cinder_volume, tmp_path):
    flow = Flow(cloud)
    host = socket.gethostname() + "@sheep"

    def is_up():
        assert cinder_volume.running, cinder_volume.log_tail()
        return any(service.host == host and service.state == "up"
                   for service in flow.storage.services())

    wait_until(is_up, START_TIMEOUT, "cinder-volume to report")
    # The two commands of the page.
    flow.openstack("volume", "type", "create", "sheep", "--property", "volume_backend_name=sheep")
    volume = flow.volume("--type", "sheep", size=10)
    assert flow.storage.get_volume(volume).host.startswith(host + "#copies-")
    flow.write(volume, 9 << 30, b"pasted")
    assert flow.size(volume) == 10 << 30
    flow.delete_volume(volume)
    flow.openstack("volume", "type", "delete", "sheep")
