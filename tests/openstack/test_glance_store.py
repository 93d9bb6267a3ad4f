"""The store behind Glance, called as glance_store calls it, on real sheep."""

import contextlib
import hashlib
import io
import random
import signal
import threading
import uuid

import pytest
from glance_store import backend, exceptions, multi_backend
from glance_store import location as locations
from oslo_config import cfg

from glance_store_driver import unfinished
from tests.functional.harness import SheepCluster, free_port, wait_until

MIB = 1 << 20
OBJECT = 4 * MIB


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


class Glance:
    """A store, and what glance-api does with it."""

    def __init__(self, conf, scheme_map, backend_id):
        self.conf = conf
        self.backend_id = backend_id
        self.store = scheme_map["store"]

    def place(self, uri):
        if self.backend_id is None:
            return locations.get_location_from_uri(uri, self.conf)
        return locations.get_location_from_uri_and_backend(uri, self.backend_id, self.conf)

    def add(self, data, size=None, image_id=None, verifier=None):
        """The location of a new image."""
        return self.store.add(
            image_id or str(uuid.uuid4()), io.BytesIO(data) if isinstance(data, bytes) else data,
            size, "sha512", verifier=verifier)[0]

    def read(self, uri, **part):
        chunks, size = self.store.get(self.place(uri), **part)
        data = b"".join(chunks)
        assert len(data) == size
        return data

    def delete(self, uri):
        self.store.delete(self.place(uri))


def multi_store(addresses, **options):
    """A store named ``fast`` in ``enabled_backends``."""
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends", default={"fast": "sheepdog"}))
    conf([], default_config_files=[])
    multi_backend.register_store_opts(conf)
    for name, value in {"addresses": addresses, **options}.items():
        conf.set_override("sheepdog_store_" + name, value, group="fast")
    multi_backend.create_multi_stores(conf)
    return Glance(conf, locations.SCHEME_TO_CLS_BACKEND_MAP["sheepdog"]["fast"], "fast")


def single_store(addresses):
    """The only store, configured in ``[glance_store]``."""
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    backend.register_opts(conf)
    conf.set_override("stores", ["sheepdog"], group="glance_store")
    conf.set_override("sheepdog_store_addresses", addresses, group="glance_store")
    backend.create_stores(conf)
    return Glance(conf, locations.SCHEME_TO_CLS_MAP["sheepdog"], None)


@pytest.fixture
def glance(sheep):
    return multi_store(sheep.addresses)


@pytest.fixture
def client(sheep):
    return sheep.client()


def vdis(client):
    return {(header.name, header.tag) for header in client.list_vdis()}


# -- adding and reading


@pytest.mark.parametrize("make", [single_store, multi_store])
def test_add_get_delete(sheep, client, make):
    glance = make(sheep.addresses)
    data = noise(9 * MIB + 77)
    image_id = str(uuid.uuid4())
    before = vdis(client)
    uri, size, checksum, multihash, metadata = glance.store.add(
        image_id, io.BytesIO(data), len(data), "sha256")
    assert uri == "sheepdog://%s/image-%s/snap" % (client.uuid(), image_id)
    assert size == len(data)
    assert checksum == hashlib.md5(data).hexdigest()
    assert multihash == hashlib.sha256(data).hexdigest()
    assert metadata == ({"store": "fast"} if make is multi_store else {})
    assert vdis(client) - before == {("image-" + image_id, "snap")}
    assert glance.read(uri) == data
    assert glance.store.get_size(glance.place(uri)) == len(data)
    glance.delete(uri)
    assert vdis(client) == before
    for use in (glance.read, glance.delete, lambda uri: glance.store.get_size(glance.place(uri))):
        with pytest.raises(exceptions.NotFound):
            use(uri)


@pytest.mark.parametrize("offset, length", [
    (0, 1), (1, OBJECT), (OBJECT - 1, 2), (2 * OBJECT, 10), (9 * MIB, 100), (0, 100 * MIB),
    (9 * MIB + 77, 1), (50 * MIB, 1), (3 * MIB, None), (None, 5)])
def test_a_part_of_an_image(glance, whole_image, offset, length):
    data, uri = whole_image
    start = offset or 0
    end = len(data) if length is None else start + length
    part = {name: value for name, value in (("offset", offset), ("chunk_size", length))
            if value is not None}
    assert glance.read(uri, **part) == data[start:end]


@pytest.fixture(scope="module")
def whole_image(session_sheep):
    data = noise(6 * MIB) + bytes(2 * MIB) + noise(MIB + 77)
    glance = multi_store(session_sheep.addresses)
    uri = glance.add(data)
    yield data, uri
    glance.delete(uri)


@pytest.mark.parametrize("size", [1, 1000, OBJECT - 1, OBJECT, OBJECT + 1, 11 * MIB])
def test_of_unknown_size(glance, size):
    data = noise(size, size)
    for unknown in (0, None):
        uri = glance.add(data, unknown)
        assert glance.store.get_size(glance.place(uri)) == size
        assert glance.read(uri) == data
        glance.delete(uri)


def test_an_empty_image(glance):
    uri = glance.add(b"")
    assert glance.read(uri) == b""
    glance.delete(uri)


class Pieces:
    """A file that gives other amounts than it is asked for, as glance-api's own do."""

    def __init__(self, *pieces):
        self._pieces = iter(pieces)

    def read(self, size=None):
        return next(self._pieces, b"")


def test_pieces_of_all_sizes(glance):
    pieces = [noise(size, size) for size in (1, 5 * MIB, 70000, 9 * MIB, 3)]
    uri = glance.add(Pieces(*pieces))
    assert glance.read(uri) == b"".join(pieces)
    glance.delete(uri)
    uri = glance.add(iter(pieces))
    assert glance.read(uri) == b"".join(pieces)
    glance.delete(uri)


@pytest.mark.parametrize("known", [True, False])
def test_zeros_stay_holes(glance, client, known):
    """200 MiB of zeros and three pieces of data, of which four objects remain."""
    size = 200 * MIB
    data = bytearray(size)
    for position in (0, 52 * MIB - 10, 199 * MIB):
        data[position:position + 100] = noise(100, position + 1)
    uri = glance.add(bytes(data), size if known else 0)
    place = glance.place(uri).store_location
    with client.open_vdi(place.image, place.snapshot) as vdi:
        assert sum(length for _, length, is_data in vdi.extents(0, size) if is_data) \
            == 4 * OBJECT
    assert glance.read(uri) == data
    glance.delete(uri)


class Verifier:
    """Stands for cursive's: sees all bytes in their order."""

    def __init__(self, fails=False):
        self.digest = hashlib.sha1()
        self._fails = fails

    def update(self, data):
        if self._fails:
            raise RuntimeError("no signature fits")
        self.digest.update(data)


def test_the_verifier_sees_it_all(glance):
    data = noise(10 * MIB)
    verifier = Verifier()
    glance.delete(glance.add(data, verifier=verifier))
    assert verifier.digest.hexdigest() == hashlib.sha1(data).hexdigest()


def test_the_pre_multihash_call(glance):
    answer = glance.store.add(str(uuid.uuid4()), io.BytesIO(b"abc"), 3)
    assert answer[1:] == (3, hashlib.md5(b"abc").hexdigest(), {"store": "fast"})
    glance.delete(answer[0])


def test_copy_policy_and_object_size(sheep, client):
    glance = multi_store(sheep.addresses, copy_policy="2", chunk_size=8, prefix="double-")
    uri = glance.add(b"abc")
    place = glance.place(uri).store_location
    assert place.image.startswith("double-")
    assert client.lookup(place.image, "snap")[1:] == (2, 23)
    glance.delete(uri)


def test_many_threads_share_the_store(glance):
    blobs = [noise(5 * MIB, seed) for seed in range(6)]
    uris = {}

    def add(number):
        uris[number] = glance.add(blobs[number])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(len(blobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [glance.read(uris[number]) for number in range(len(blobs))] == blobs
    for uri in uris.values():
        glance.delete(uri)


def test_a_download_that_nobody_finishes(glance, whole_image):
    data, uri = whole_image
    chunks, _ = glance.store.get(glance.place(uri))
    assert data.startswith(next(chunks))
    chunks.close()
    assert glance.read(uri) == data


# -- what goes wrong leaves nothing behind


class Broken:
    """Gives some bytes, and then an error."""

    def __init__(self, size):
        self._left = size

    def read(self, size):
        if self._left <= 0:
            raise OSError("the client hung up")
        self._left -= size
        return noise(size)


@pytest.mark.parametrize("data, size, verifier, error", [
    (Broken(9 * MIB), 20 * MIB, None, OSError),
    (Broken(9 * MIB), None, None, OSError),
    (noise(5 * MIB), 5 * MIB + 1, None, exceptions.Invalid),
    (noise(5 * MIB), 5 * MIB - 1, None, exceptions.Invalid),
    (noise(5 * MIB), OBJECT, None, exceptions.Invalid),
    (noise(5 * MIB), None, Verifier(fails=True), RuntimeError),
    (b"", 1 << 43, None, exceptions.StorageFull),
], ids=["broken", "broken, unknown size", "too short", "too long", "an object too long",
        "verifier", "larger than a VDI"])
def test_a_failed_upload_leaves_nothing(glance, client, data, size, verifier, error):
    before = vdis(client)
    with pytest.raises(error):
        glance.add(data, size, verifier=verifier)
    assert vdis(client) == before


def test_an_unknown_hash(glance, client):
    before = vdis(client)
    with pytest.raises(ValueError):
        glance.store.add(str(uuid.uuid4()), io.BytesIO(b"abc"), 3, "no-such-hash")
    assert vdis(client) == before


def test_duplicate(glance, client):
    image_id = str(uuid.uuid4())
    uri = glance.add(b"first", image_id=image_id)
    before = vdis(client)
    with pytest.raises(exceptions.Duplicate):
        glance.add(b"second", image_id=image_id)
    assert vdis(client) == before
    assert glance.read(uri) == b"first"
    glance.delete(uri)


class Gate:
    """Bytes of which the end comes when the test says so."""

    def __init__(self, *pieces):
        self.reached = threading.Event()
        self.open = threading.Event()
        self._pieces = list(pieces)

    def read(self, size):
        if len(self._pieces) == 1 and not self.open.is_set():
            self.reached.set()
            assert self.open.wait(60)
        return self._pieces.pop(0) if self._pieces else b""


@contextlib.contextmanager
def upload_in_the_middle(glance, image_id, outcome, data=noise(20 * MIB), size=None):
    """An upload of which the last MiB comes once the block is left."""
    gate = Gate(data[:-MIB], data[-MIB:])

    def add():
        try:
            outcome.append(glance.add(gate, size, image_id=image_id))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        assert gate.reached.wait(60)
        yield data
    finally:
        gate.open.set()
        thread.join()


def test_two_uploads_of_one_image(glance, client):
    image_id, outcome = str(uuid.uuid4()), []
    with upload_in_the_middle(glance, image_id, outcome) as data:
        with pytest.raises(exceptions.Duplicate):
            glance.add(b"in between", image_id=image_id)
    assert glance.read(outcome[0]) == data
    glance.delete(outcome[0])


def test_who_comes_too_late_does_no_harm(glance, client):
    """An upload that lost its VDI fails, and leaves alone the image that has its name now."""
    image_id, outcome = str(uuid.uuid4()), []
    with upload_in_the_middle(glance, image_id, outcome):
        client.delete_vdi("image-" + image_id)
        uri = glance.add(b"in between", image_id=image_id)
        before = vdis(client)
    assert isinstance(outcome[0], exceptions.GlanceStoreException)
    assert vdis(client) == before
    assert glance.read(uri) == b"in between"
    glance.delete(uri)


def test_who_was_killed_is_not_waited_for(glance, client, monkeypatch):
    """What he left is in nobody's way."""
    monkeypatch.setattr(unfinished, "PATIENCE", 3)
    image_id = str(uuid.uuid4())
    client.create_vdi("image-" + image_id, MIB)
    client.setattr("image-" + image_id, "glance-upload", b"somebody 7")
    uri = glance.add(b"anew", image_id=image_id)
    assert glance.read(uri) == b"anew"
    glance.delete(uri)


def test_unfinished_uploads_are_removed(glance, client):
    """Those that go on, however slowly, are not, nor what has no mark of ours."""
    dead, foreign, outcome = "image-dead", "image-foreign", []
    client.create_vdi(dead, MIB)
    client.setattr(dead, "glance-upload", b"somebody 7")
    client.create_vdi(foreign, MIB)
    sweeper = unfinished.Sweeper(client, "image-", 3 * unfinished.BEAT)
    with upload_in_the_middle(glance, str(uuid.uuid4()), outcome) as data:
        def is_removed():
            sweeper.look()
            return (dead, "") not in vdis(client)

        wait_until(is_removed, 60, "the unfinished upload to be removed")
        assert (foreign, "") in vdis(client)
    assert glance.read(outcome[0]) == data
    glance.delete(outcome[0])
    client.delete_vdi(foreign)


# -- faults


def test_a_sheep_dies_during_an_upload(glance, sheep):
    outcome = []
    with upload_in_the_middle(glance, str(uuid.uuid4()), outcome) as data:
        # The one that the store talks to.
        sheep.kill(0)
    assert glance.read(outcome[0]) == data
    glance.delete(outcome[0])


def test_a_sheep_dies_during_a_download(glance, sheep, whole_image):
    data, uri = whole_image
    chunks, _ = glance.store.get(glance.place(uri))
    first = next(chunks)
    sheep.kill(0)
    assert first + b"".join(chunks) == data


def test_a_clone_outlives_the_image(glance, client):
    data = noise(9 * MIB)
    uri = glance.add(data)
    place = glance.place(uri).store_location
    client.clone(place.image, place.snapshot, "volume")
    glance.delete(uri)
    with pytest.raises(exceptions.NotFound):
        glance.read(uri)
    with client.open_vdi("volume") as vdi:
        assert vdi.pread(0, vdi.size) == data
    client.delete_vdi("volume")


def test_nobody_there():
    glance = multi_store(["127.0.0.1:%d" % free_port()], timeout=2)
    uri = "sheepdog://%s/image-x/snap" % uuid.uuid4()
    for use in (glance.read, glance.delete, lambda uri: glance.add(b"abc")):
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            use(uri)


def test_another_cluster(glance):
    with pytest.raises(exceptions.NotFound, match="another-uuid"):
        glance.read("sheepdog://another-uuid/image-x/snap")


def test_what_is_no_image(glance, client):
    """Whoever may set locations gets neither at volumes nor at what happens to be a snapshot
    of an image's VDI."""
    for name, tag in (("volume-1", "snap"), ("image-1", "other")):
        client.create_vdi(name, MIB)
        client.snapshot(name, tag)
        uri = "sheepdog://%s/%s/%s" % (client.uuid(), name, tag)
        for use in (glance.read, glance.delete,
                    lambda uri: glance.store.get_size(glance.place(uri))):
            with pytest.raises(exceptions.NotFound, match="no image of this store"):
                use(uri)
        client.lookup(name, tag)
        client.delete_vdi(name, tag)
        client.delete_vdi(name)


def test_full(small_cluster):
    glance = multi_store(small_cluster.addresses)
    with pytest.raises(exceptions.StorageFull):
        glance.add(noise(100 * MIB), 100 * MIB)
    assert not vdis(small_cluster.client())
    # Its space comes back in the background.
    glance.delete(wait_until(
        lambda: added_if_there_is_room(glance, noise(MIB)), 30, "room for a small image"))


def added_if_there_is_room(glance, data):
    try:
        return glance.add(data)
    except exceptions.StorageFull:
        return None


def test_wrong_secret_and_no_format(tmp_path):
    with contextlib.closing(SheepCluster(
            tmp_path / "c", "local:%s" % (tmp_path / "coordination"),
            auth_key=b"the right secret!")) as cluster:
        cluster.start(1, None)
        right = multi_store(cluster.addresses, auth_key_file=str(cluster.auth_key_file))
        with pytest.raises(exceptions.BadStoreConfiguration, match="format"):
            right.add(b"abc")
        wrong_file = tmp_path / "wrong"
        wrong_file.write_bytes(b"another secret, long enough")
        wrong = multi_store(cluster.addresses, auth_key_file=str(wrong_file))
        with pytest.raises(exceptions.BadStoreConfiguration):
            wrong.add(b"abc")
        cluster.format(1)
        assert right.read(right.add(b"abc")) == b"abc"
        cluster.kill(0, signal.SIGTERM)


# -- configuration and locations


@pytest.mark.parametrize("options", [
    {"addresses": ["[::1"]}, {"addresses": []}, {"copy_policy": "3:1"}, {"chunk_size": 3},
    {"auth_key_file": "/no/such/file"}], ids=str)
def test_bad_configuration(options):
    glance = multi_store(**{"addresses": ["127.0.0.1:7000"], **options})
    with pytest.raises(exceptions.StoreAddDisabled):
        glance.add(b"abc")
    uri = "sheepdog://%s/image-x/snap" % uuid.uuid4()
    with pytest.raises(exceptions.BadStoreConfiguration):
        glance.read(uri)


@pytest.mark.parametrize("uri", [
    "sheepdog://", "sheepdog://uuid", "sheepdog://uuid/image", "sheepdog://uuid//snap",
    "sheepdog://uuid/image/snap/more", "sheepdog:///image/snap"])
def test_bad_locations(glance, uri):
    with pytest.raises(exceptions.BadStoreUri):
        glance.place(uri)


def test_locations_are_quoted(glance):
    uri = "sheepdog://uuid/a%2Fb%20%C3%A4/s%25"
    place = glance.place(uri).store_location
    assert (place.cluster, place.image, place.snapshot) == ("uuid", "a/b ä", "s%")
    assert place.get_uri() == uri
