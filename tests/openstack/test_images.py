"""Images in sheep, by way of the real Glance."""

import hashlib
import os
import random

import pytest
from keystoneauth1 import exceptions

from tests.functional.harness import wait_until
from tests.openstack.glance import FILES, SHEEP

MIB = 1 << 20


@pytest.fixture(scope="module")
def sparse_file(tmp_path_factory):
    """200 MiB, of which 3 are data."""
    path = tmp_path_factory.mktemp("images") / "sparse.raw"
    with path.open("wb") as file:
        for position in (0, 99 * MIB, 199 * MIB):
            file.seek(position)
            file.write(os.urandom(MIB))
    return path


def create_raw(cloud, path, name):
    return cloud.openstack("image", "create", "--disk-format", "raw",
                           "--container-format", "bare", "--file", path, name)


def download(cloud, image_id, byte_range=None):
    """The answer of Glance itself, as the openstack command knows no ranges."""
    headers = {"Range": "bytes=" + byte_range} if byte_range else {}
    return cloud.connection.image.get("/images/%s/file" % image_id, headers=headers)


def queued(cloud, name):
    """A new image without data."""
    return cloud.connection.image.create_image(
        name, disk_format="raw", container_format="bare", allow_duplicates=True)


def upload(cloud, image, data, **options):
    """Give an image its bytes, or an iterator of them; raises where Glance does not take them."""
    cloud.connection.image.put(
        "/images/%s/file" % image.id, data=data,
        headers={"Content-Type": "application/octet-stream"}, **options).raise_for_status()


def is_in_sheep(client, image):
    """Whether there is anything of it."""
    return "image-" + image.id in {header.name for header in client.list_vdis()}


def test_create_download_delete(cloud, sparse_file, tmp_path):
    client = cloud.sheep.client()
    data = sparse_file.read_bytes()
    image = create_raw(cloud, sparse_file, "sparse")
    assert (image["status"], image["size"]) == ("active", len(data))
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["properties"]["os_hash_value"] == hashlib.sha512(data).hexdigest()
    name = "image-" + image["id"]
    assert image["properties"]["direct_url"] == "sheepdog://%s/%s/snap" % (client.uuid(), name)
    with client.open_vdi(name, "snap") as vdi:
        used = sum(size for _, size, is_data in vdi.extents(0, vdi.size) if is_data)
        assert used == 3 * vdi.block_size
    cloud.openstack("image", "save", "--file", tmp_path / "back.raw", image["id"])
    assert (tmp_path / "back.raw").read_bytes() == data
    for first, last in ((0, 0), (1000, 5 * MIB), (99 * MIB - 1, 99 * MIB), (199 * MIB, None)):
        answer = download(cloud, image["id"], "%d-%s" % (first, "" if last is None else last))
        assert answer.status_code == 206
        end = len(data) if last is None else last + 1
        assert answer.headers["Content-Range"] == "bytes %d-%d/%d" % (first, end - 1, len(data))
        assert answer.content == data[first:end]
    assert download(cloud, image["id"], "%d-" % len(data)).status_code == 416
    cloud.openstack("image", "delete", image["id"])
    assert name not in {header.name for header in client.list_vdis()}


def stores_of(cloud, image_id):
    answer = cloud.connection.image.get("/images/" + image_id)
    return set(answer.json()["stores"].split(","))


def are_tasks_done(cloud, image_id):
    """Only then has Glance written down for the last time what an import changed."""
    tasks = cloud.connection.image.get("/images/%s/tasks" % image_id).json()["tasks"]
    assert all(task["status"] != "failure" for task in tasks), tasks
    return all(task["status"] == "success" for task in tasks)


def test_between_stores(cloud, sparse_file):
    """An image in sheep is copied to files, and from there back."""
    image_service = cloud.connection.image
    image = create_raw(cloud, sparse_file, "wanderer")
    for target, other in ((FILES, SHEEP), (SHEEP, FILES)):
        cloud.openstack("image", "import", image["id"], "--method", "copy-image",
                        "--store", target)
        wait_until(lambda: are_tasks_done(cloud, image["id"]), 60,
                   "the copy in store %s" % target)
        assert stores_of(cloud, image["id"]) == {FILES, SHEEP}
        image_service.delete("/stores/%s/%s" % (other, image["id"])).raise_for_status()
    assert stores_of(cloud, image["id"]) == {SHEEP}
    assert download(cloud, image["id"]).content == sparse_file.read_bytes()
    cloud.openstack("image", "delete", image["id"])


def test_a_sheep_dies_during_an_upload(cloud, sheep):
    """The one that Glance talks to."""
    image_service = cloud.connection.image
    data = random.Random(1).randbytes(48 * MIB)

    def pieces():
        for start in range(0, len(data), MIB):
            if start == len(data) // 2:
                sheep.kill(0)
            yield data[start:start + MIB]

    image = queued(cloud, "upload")
    upload(cloud, image, pieces())
    assert image_service.get_image(image.id).checksum == hashlib.md5(data).hexdigest()
    assert download(cloud, image.id).content == data
    image_service.delete_image(image)


def test_an_upload_that_breaks_off(cloud):
    """Its bytes go, and the image can be uploaded again."""
    client = cloud.sheep.client()
    image_service = cloud.connection.image
    image = queued(cloud, "broken")

    def pieces():
        yield bytes(9 * MIB)
        raise RuntimeError("the client gives up")

    with pytest.raises(RuntimeError, match="gives up"):
        upload(cloud, image, pieces())
    wait_until(lambda: image_service.get_image(image.id).status == "queued" and
               not is_in_sheep(client, image),
               60, "the broken upload to be cleared away")
    upload(cloud, image, b"whole")
    assert download(cloud, image.id).content == b"whole"
    image_service.delete_image(image)


def test_glance_is_killed_during_an_upload(cloud):
    """The image cannot become whole any more; what there is of it goes with later uploads."""
    client = cloud.sheep.client()
    image_service = cloud.connection.image
    image = queued(cloud, "killed")

    def pieces():
        for _ in range(9):
            yield bytes(MIB - 1) + b"x"
        wait_until(lambda: is_in_sheep(client, image), 60, "the upload to begin")
        cloud.glance.daemon.kill()
        yield bytes(MIB)

    with pytest.raises(exceptions.ClientException):
        upload(cloud, image, pieces(), connect_retries=0)
    cloud.glance.daemon.start().wait_ready()
    image_service.delete_image(image)

    def is_gone():
        other = image_service.create_image(
            "other", data=b"other", disk_format="raw", container_format="bare",
            allow_duplicates=True, wait=True)
        image_service.delete_image(other)
        return not is_in_sheep(client, image)

    wait_until(is_gone, 120, "the unfinished upload to be removed")
