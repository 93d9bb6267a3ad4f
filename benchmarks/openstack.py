"""Glance and Cinder on sheep beside Glance's file store: ``make bench-openstack``.

Both stores are behind the same glance-api, on the same disk; the sheep keep three copies there
and the file store one.  So the ratio shows what is paid for copies and the network.
"""

import argparse
import random
import time

from benchmarks.table import Result, Table
from tests.openstack.flow import Flow
from tests.openstack.glance import FILES, SHEEP
from tests.openstack.running import running_cloud

MIB = 1 << 20
_PIECE = MIB


class Bench:
    """``size`` in MiB: of the images that are uploaded.  ``large`` in GiB: of the image whose
    cloning must not take longer than a small one's."""

    def __init__(self, cloud, size, large, repeats):
        self._flow = Flow(cloud)
        self._size = size
        self._large = large
        self._repeats = repeats
        self._piece = random.Random(1).randbytes(_PIECE)
        self._table = Table("Glance and Cinder on three sheep, three copies",
                            peer="Glance's file store")

    def run(self):
        self._uploads_and_downloads()
        self._volumes_from_images()
        self._volume_to_image()

    def _image(self, store, pieces):
        """(id, seconds of the upload) of an image."""
        images = self._flow.images
        image = images.create_image(self._flow.name("image"), disk_format="raw",
                                    container_format="bare", allow_duplicates=True)
        begin = time.monotonic()
        images.put("/images/%s/file" % image.id, data=pieces, headers={
            "Content-Type": "application/octet-stream",
            "X-Image-Meta-Store": store}).raise_for_status()
        return image.id, time.monotonic() - begin

    def _download(self, image_id):
        begin = time.monotonic()
        with self._flow.images.get("/images/%s/file" % image_id, stream=True) as answer:
            for _ in answer.iter_content(_PIECE):
                pass
        return time.monotonic() - begin

    def _uploads_and_downloads(self):
        speeds = {(what, store): [] for what in ("up", "down") for store in (SHEEP, FILES)}
        for _ in range(self._repeats):
            for store in (SHEEP, FILES):
                image_id, seconds = self._image(store, (self._piece for _ in range(self._size)))
                speeds["up", store].append(self._size / seconds)
                speeds["down", store].append(self._size / self._download(image_id))
                self._flow.images.delete_image(image_id)
        for name, what in (("image upload, %d MiB", "up"), ("image download, %d MiB", "down")):
            self._table.add(Result(name % self._size, "http", "MiB/s", True,
                                   speeds[what, SHEEP], speeds[what, FILES]))

    def _volume_seconds(self, image_id, size):
        """From the request until the volume can be used."""
        storage = self._flow.storage
        begin = time.monotonic()
        volume = storage.create_volume(image_id=image_id, size=size)
        self._flow.wait_volume(volume.id)
        seconds = time.monotonic() - begin
        self._flow.drop_volume(volume.id)
        return seconds

    def _clone_seconds(self, image_id):
        """What of that is spent in sheep."""
        client = self._flow.client
        begin = time.monotonic()
        client.clone("image-" + image_id, "snap", "bench-clone")
        client.resize("bench-clone", self._large << 30)
        seconds = time.monotonic() - begin
        client.delete_vdi("bench-clone")
        return seconds

    def _volumes_from_images(self):
        small, _ = self._image(SHEEP, (self._piece for _ in range(64)))
        large, _ = self._image(SHEEP, self._sparse(self._large << 10))
        for name, client, measure in (
                ("volume from image, %s", "http", self._volume_seconds),
                ("its clone in sheep, %s", "own", self._clone_seconds)):
            for size, image_id in (("64 MiB", small), ("%d GiB" % self._large, large)):
                arguments = (self._large,) if measure == self._volume_seconds else ()
                values = [1000 * measure(image_id, *arguments) for _ in range(self._repeats)]
                self._table.add(Result(name % size, client, "ms", False, values))
        for image_id in (small, large):
            self._flow.images.delete_image(image_id)

    def _sparse(self, mib):
        """A MiB of data in every 64."""
        zeros = bytes(_PIECE)
        for number in range(mib):
            yield zeros if number % 64 else self._piece

    def _volume_to_image(self):
        volume = self._flow.create()
        with self._flow.open(volume) as vdi:
            for number in range(self._size):
                vdi.pwrite(number * MIB, self._piece)
        speeds = []
        for _ in range(self._repeats):
            begin = time.monotonic()
            answer = self._flow.storage.upload_volume_to_image(
                volume, self._flow.name("image"), disk_format="raw", container_format="bare")
            self._flow.wait(self._flow.images.get_image, answer["image_id"], "active")
            speeds.append(1024 / (time.monotonic() - begin))
            self._flow.images.delete_image(answer["image_id"])
            self._flow.wait_volume(volume)
        self._table.add(Result("volume of 1 GiB to image", "http", "MiB/s", True, speeds))
        self._flow.drop_volume(volume)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openstack")
    add = parser.add_argument
    add("--size", type=int, default=256, help="MiB of an image (default: 256)")
    add("--large", type=int, default=10, help="GiB of the large image (default: 10)")
    add("--repeats", type=int, default=5, help="of each row (default: 5)")
    given = parser.parse_args()
    with running_cloud() as cloud:
        Bench(cloud, given.size, given.large, given.repeats).run()


if __name__ == "__main__":
    main()
