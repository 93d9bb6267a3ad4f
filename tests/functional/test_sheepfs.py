"""sheepfs: VDIs as files that ordinary programs use."""

import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sheepstack.client import VdiLocked
from tests.functional.client_behaviour import MIB, OBJECT, noise
from tests.functional.harness import HOST, wait_until
from tests.functional.sheepfs import MISSING, TIMEOUT, Mount, is_mounted

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="not there: %s" % ", ".join(MISSING)),
    # How sheep run and find one another makes no difference to a file system.
    pytest.mark.deployment("eventlet+local"),
]

SIZE = 64 * MIB


def run(*argv, **options):
    """What a program printed.  Raises AssertionError where it fails."""
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, "%s: %s%s" % (argv, done.stdout, done.stderr)
    return done.stdout


def fails(number):
    """Expect OSError with this number."""
    class Expected:
        def __enter__(self):
            self._raises = pytest.raises(OSError)
            self._error = self._raises.__enter__()

        def __exit__(self, *exc_info):
            caught = self._raises.__exit__(*exc_info)
            assert self._error.value.errno == number, os.strerror(self._error.value.errno)
            return caught
    return Expected()


@pytest.fixture
def start_cluster(make_cluster):
    """Function that starts sheep that know locks and do not wait for the disk."""
    def start(nodes, copies):
        cluster = make_cluster(nodes, copies, settings={"sync": False}, format_options=["-l"])
        cluster.client().create_vdi("disk", SIZE)
        return cluster
    return start


@pytest.fixture
def cluster(start_cluster):
    """One sheep, as most of what sheepfs does is the same with more."""
    return start_cluster(1, 1)


@pytest.fixture
def client(cluster):
    return cluster.client()


@pytest.fixture
def start_sheepfs(tmp_path):
    """Function that mounts one more sheepfs that knows all sheep of a cluster."""
    mounts = []

    def start(cluster, *options, directory=None):
        addresses = [word for address in cluster.addresses for word in ("-a", address)]
        directory = directory or tmp_path / ("sheepfs%d" % len(mounts))
        mounts.append(Mount(directory, *addresses, *options))
        return mounts[-1]

    yield start
    for mount in mounts:
        mount.close()
        assert "Traceback" not in mount.log.read_text()


@pytest.fixture
def sheepfs(cluster, start_sheepfs):
    return start_sheepfs(cluster)


def content(client, name="disk"):
    with client.open_vdi(name, read_only=True) as vdi:
        return vdi.pread(0, vdi.size)


# -- the tree


def test_the_texts_are_those_of_dog(cluster, sheepfs):
    for path in ("vdi/list", "node/list", "node/info", "cluster/info"):
        # How much room there is on the host changes without us.
        wait_until(
            lambda: sheepfs.path(path).read_bytes() == cluster.dog(*path.split("/")).out,
            20, lambda: "%s to be what dog says: %s" % (path, sheepfs.path(path).read_text()))
    assert sheepfs.path("vdi/list").read_text().splitlines()[1].split()[0] == "disk"
    assert sheepfs.path("config/gateways").read_text().split() == cluster.addresses


def test_a_volume_comes_and_goes(cluster, client, sheepfs):
    assert os.listdir(sheepfs.path("volume")) == []
    path = sheepfs.mount("disk")
    sheepfs.mount("disk")
    assert os.listdir(sheepfs.path("volume")) == ["disk"]
    assert path.stat().st_size == SIZE
    with pytest.raises(VdiLocked):
        client.open_vdi("disk")
    with path.open("rb"):
        with fails(errno.EBUSY):
            sheepfs.order("vdi/unmount", "disk\n")
    sheepfs.order("vdi/unmount", "disk")
    assert not path.exists()
    with fails(errno.ENOENT):
        sheepfs.order("vdi/unmount", "disk\n")
    client.open_vdi("disk").close()


def test_a_vdi_is_mounted_for_writing_once(cluster, client, sheepfs, start_sheepfs):
    sheepfs.mount("disk").write_bytes(b"first")
    other = start_sheepfs(cluster)
    with fails(errno.EBUSY):
        other.mount("disk")
    reader = start_sheepfs(cluster, "-r")
    path = reader.mount("disk")
    assert path.read_bytes()[:5] == b"first"
    with fails(errno.EROFS):
        path.open("r+b")
    assert sheepfs.end() == 0
    other.mount("disk").write_bytes(b"other")
    assert content(client)[:5] == b"other"


def test_a_snapshot_is_mounted_for_reading(client, sheepfs):
    path = sheepfs.mount("disk")
    path.write_bytes(b"before")
    client.snapshot("disk", "tag")
    path.write_bytes(b"behind")
    for name in ("disk@tag", "disk@1"):
        snapshot = sheepfs.mount(name)
        assert snapshot.read_bytes()[:6] == b"before"
        with fails(errno.EROFS):
            snapshot.open("r+b")
        sheepfs.order("vdi/unmount", name)
    assert path.read_bytes()[:6] == b"behind"
    for name in ("disk@other", "disk@2", "other@tag"):
        with fails(errno.ENOENT):
            sheepfs.mount(name)


GARBAGE = (b"\n", b"\n\n", b"no such disk", b"disk\0", b"\xff\xfe\n", b"disk/x", b"..", b"/",
           b"disk\nx", b"x" * 300, bytes(range(256)) * 500)


def test_garbage_is_refused(client, sheepfs):
    """Nothing is mounted, nothing is changed, and all goes on."""
    before = sheepfs.path("config/read_ahead").read_bytes()
    for name in ("vdi/mount", "vdi/unmount", "config/page_cache", "config/read_ahead"):
        for garbage in GARBAGE:
            with pytest.raises(OSError) as error:
                sheepfs.order(name, garbage)
            assert error.value.errno in (errno.EINVAL, errno.ENOENT), garbage
        sheepfs.order(name, b"")
    assert os.listdir(sheepfs.path("volume")) == []
    assert sheepfs.path("config/page_cache").read_bytes() == b"0\n"
    assert sheepfs.path("config/read_ahead").read_bytes() == before
    sheepfs.mount("disk")


def test_what_the_tree_does_not_offer(sheepfs):
    path = sheepfs.mount("disk")
    for attempt in (lambda: sheepfs.volume("new").touch(), path.unlink, path.parent.rmdir,
                    lambda: path.rename(sheepfs.volume("other")),
                    lambda: sheepfs.path("x").mkdir()):
        with fails(errno.EPERM):
            attempt()
    with fails(errno.EACCES):
        sheepfs.path("vdi/mount").read_bytes()
    with fails(errno.EACCES):
        sheepfs.order("vdi/list", b"x")
    with fails(errno.ENOTDIR):
        sheepfs.path("vdi/list/x").stat()
    path.chmod(0o640)
    os.chown(path, 12, 34)
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 12, 34)


# -- what is in a volume


def test_bytes_go_in_and_come_out(client, sheepfs):
    path = sheepfs.mount("disk")
    expected = bytearray(SIZE)
    with path.open("r+b", buffering=0) as file:
        for offset, length in ((0, 1), (OBJECT - 3, 7), (3 * OBJECT, 5 * MIB), (SIZE - 9, 9)):
            data = noise(length, offset)
            for start in range(0, length, MIB):
                assert os.pwrite(file.fileno(), data[start:start + MIB], offset + start)
            expected[offset:offset + length] = data
        os.fsync(file.fileno())
        assert path.read_bytes() == expected
    assert content(client) == expected


def test_a_volume_ends_where_it_ends(client, sheepfs):
    path = sheepfs.mount("disk")
    with path.open("r+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), b"12345", SIZE - 3) == 3
        with fails(errno.ENOSPC):
            os.pwrite(file.fileno(), b"x", SIZE)
        assert os.pread(file.fileno(), 10, SIZE - 4) == b"\000123"
        assert os.pread(file.fileno(), 10, SIZE) == b""


def test_it_is_made_bigger_and_never_smaller(cluster, client, sheepfs):
    path = sheepfs.mount("disk")
    path.write_bytes(b"kept")
    assert path.stat().st_size == SIZE
    for size in (0, SIZE - 1):
        with fails(errno.EINVAL):
            os.truncate(path, size)
    os.truncate(path, SIZE)
    os.truncate(path, SIZE + 4096)
    assert path.stat().st_size == SIZE + 4096
    assert cluster.dog("vdi", "list", "-r").text.split(" ")[3] == str(SIZE + 4096)
    with path.open("r+b") as file:
        file.seek(SIZE)
        file.write(b"new")
    assert content(client) == b"kept".ljust(SIZE, b"\0") + b"new".ljust(4096, b"\0")


def test_holes_are_given_back(cluster, client, sheepfs):
    path = sheepfs.mount("disk")
    path.write_bytes(b"\x11" * 3 * OBJECT)
    run("fallocate", "--punch-hole", "--offset", OBJECT - 1, "--length", OBJECT + 1, path)
    assert content(client)[:3 * OBJECT] == \
        b"\x11" * (OBJECT - 1) + bytes(OBJECT + 1) + b"\x11" * OBJECT
    with client.open_vdi("disk", read_only=True) as vdi:
        assert not vdi.extents(OBJECT, OBJECT)[0][2]
    done = subprocess.run(["fallocate", "--length", str(OBJECT), path], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and "Operation not supported" in done.stderr


# -- programs


def test_a_file_system_is_put_on_it(client, sheepfs, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(noise(2 * MIB, 1))
    path = sheepfs.mount("disk")
    run("mke2fs", "-q", "-t", "ext4", "-F", path)
    run("debugfs", "-w", "-R", "write %s copy" % source, path)
    run("e2fsck", "-f", "-n", path)
    sheepfs.order("vdi/unmount", "disk\n")
    sheepfs.mount("disk")
    run("debugfs", "-R", "dump copy %s" % back, path)
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/loop-control") or os.geteuid() != 0,
                    reason="no loop devices, or not root")
@pytest.mark.parametrize("page_cache", ["0", "1"])
def test_a_loop_device_stands_on_it(client, sheepfs, tmp_path, page_cache):
    source, mounted = tmp_path / "source", tmp_path / "mounted"
    source.write_bytes(noise(9 * MIB, 2))
    mounted.mkdir()
    sheepfs.order("config/page_cache", page_cache)
    path = sheepfs.mount("disk")
    run("mke2fs", "-q", "-t", "ext4", "-F", path)
    for action in ("copy", "compare"):
        device = run("losetup", "--find", "--show", path).strip()
        try:
            run("mount", device, mounted)
            try:
                if action == "copy":
                    run("cp", source, mounted / "copy")
                else:
                    run("cmp", source, mounted / "copy")
            finally:
                run("umount", mounted)
        finally:
            run("losetup", "--detach", device)
    wait_until(lambda: device not in run("losetup", "--list"), 20, "the loop device to go")
    run("e2fsck", "-f", "-n", path)


def test_qemu_uses_it(client, sheepfs, tmp_path):
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(noise(5 * MIB, 3) + bytes(SIZE - 8 * MIB) + noise(3 * MIB, 4))
    path = sheepfs.mount("disk")
    for cache in ("none", "writeback"):
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-t", cache, image, path)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", "-T", cache, image, path)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-T", cache, path, back)
        assert back.read_bytes() == image.read_bytes()
    out = run("qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", "-c", "write -P 7 4M 8M",
              "-c", "discard 4M 4M", "-c", "read -P 0 4M 4M", "-c", "read -P 7 8M 4M",
              "-c", "write -z 8M 64k", "-c", "read -P 0 8M 64k", "-c", "flush", path)
    assert "failed" not in out


# -- settings


def test_the_page_cache_can_be_used_or_not(cluster, client, sheepfs):
    path = sheepfs.mount("disk")
    path.write_bytes(b"text")
    sheepfs.order("config/page_cache", "1\n")
    assert sheepfs.path("config/page_cache").read_text() == "1\n"
    with path.open("rb", buffering=0) as cached:
        assert cached.read(4) == b"text"
        cluster.stop(0)
        assert os.pread(cached.fileno(), 4, 0) == b"text"
        sheepfs.order("config/page_cache", "0\n")
        with path.open("rb", buffering=0) as direct, fails(errno.EIO):
            direct.read(4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change what the kernel reads ahead")
def test_how_far_is_read_ahead(sheepfs):
    sheepfs.order("config/read_ahead", "2048\n")
    assert sheepfs.path("config/read_ahead").read_text() == "2048\n"
    major_minor = os.stat(sheepfs.directory).st_dev
    sysfs = "/sys/class/bdi/%d:%d/read_ahead_kb" % (os.major(major_minor), os.minor(major_minor))
    assert pathlib.Path(sysfs).read_text() == "2048\n"


# -- when things break


def silent(cluster):
    """The sheep holds its connections and answers nothing."""
    cluster.stop(0)
    return lambda: cluster.cont(0)


def dead(cluster):
    cluster.kill_all()
    return cluster.restart_all


def end_of(action):
    """The error number that ``action()`` ends with, 0 for none, and how long that took."""
    started = time.monotonic()
    try:
        action()
    except OSError as error:
        return error.errno, time.monotonic() - started
    return 0, time.monotonic() - started


@pytest.mark.parametrize("outage", [silent, dead])
def test_without_the_cluster_there_are_errors_but_no_hanging(cluster, client, sheepfs, outage):
    # The kernel does not change one file twice at a time.
    names = ["read", "write", "fsync", "resize"]
    for name in names:
        client.create_vdi(name, SIZE)
        sheepfs.mount(name).write_bytes(noise(MIB, 5))
    with contextlib.ExitStack() as stack:
        read, write, fsync, _ = [
            stack.enter_context(open_raw(sheepfs.volume(name), os.O_RDWR)) for name in names]
        end_outage = outage(cluster)
        attempts = [
            lambda: os.pread(read, 4096, 0),
            lambda: os.pwrite(write, b"x", 0),
            lambda: os.fsync(fsync),
            lambda: os.truncate(sheepfs.volume("resize"), 2 * SIZE),
            lambda: sheepfs.path("vdi/list").read_bytes(),
            lambda: sheepfs.path("node/info").read_bytes(),
            lambda: sheepfs.mount("disk")]
        with ThreadPoolExecutor(len(attempts)) as threads:
            ends = threads.map(end_of, attempts)
            # What needs no cluster goes on meanwhile.
            assert sheepfs.volume("read").stat().st_size == SIZE
            for number, seconds in ends:
                assert number == errno.EIO
                assert seconds < 2 * TIMEOUT
        end_outage()
        wait_until(lambda: end_of(lambda: os.fsync(fsync))[0] == 0, 60, "the volume to be back")
        assert os.pread(read, MIB, 0) == noise(MIB, 5)
        os.pwrite(write, b"after", 0)
        assert os.pread(write, 5, 0) == b"after"


@contextlib.contextmanager
def open_raw(path, flags):
    """A descriptor; closing it may fail, as with a file system that went away."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_a_daemon_that_ends_leaves_no_mount(cluster, sheepfs, start_sheepfs, number):
    path = sheepfs.mount("disk")
    path.write_bytes(b"written")
    with open_raw(path, os.O_RDONLY) as file:
        status = sheepfs.end(number)
        assert status == (0 if number == signal.SIGTERM else -number)
        assert os.listdir(sheepfs.directory) == []
        assert end_of(lambda: os.pread(file, 7, 0))[0] in (errno.ENOTCONN, errno.ECONNABORTED)
    again = start_sheepfs(cluster, directory=sheepfs.directory)
    if number == signal.SIGKILL:
        # The sheep holds the lock for one who cannot give it back any more.
        cluster.dog("vdi", "lock", "unlock", "disk")
    assert again.mount("disk").read_bytes()[:7] == b"written"


def test_it_ends_while_requests_wait_for_the_cluster(cluster, sheepfs):
    path = sheepfs.mount("disk")
    path.write_bytes(b"x" * 4096)
    with open_raw(path, os.O_RDONLY) as file, ThreadPoolExecutor(20) as threads:
        cluster.stop(0)
        reads = [threads.submit(end_of, lambda: os.pread(file, 4096, 0)) for _ in range(20)]
        sheepfs.end(timeout=10 * TIMEOUT)
        assert all(read.result()[0] for read in reads)


def test_it_goes_on_through_another_sheep(start_cluster, start_sheepfs):
    cluster = start_cluster(3, 2)
    path = start_sheepfs(cluster).mount("disk")
    piece = 64 << 10
    with path.open("r+b", buffering=0) as file:
        for number in range(100):
            if number == 20:
                cluster.kill(0)
            wait_until(
                lambda: not end_of(lambda: os.pwrite(
                    file.fileno(), bytes([number]) * piece, number * piece))[0],
                60, "a write")
    written = content(cluster.client())[:100 * piece]
    assert written == b"".join(bytes([number]) * piece for number in range(100))


# -- the command


def test_in_the_background(cluster, client, tmp_path):
    """The command returns when the file system is there; fusermount3 ends it."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    run(sys.executable, "-m", "sheepstack.cmd.sheepfs", "-a", HOST, "-p",
        cluster.sheep[0].port, directory)
    assert is_mounted(directory)
    (directory / "vdi" / "mount").write_text("disk\n")
    with pytest.raises(VdiLocked):
        client.open_vdi("disk")
    run("fusermount3", "-u", directory)
    assert not is_mounted(directory)
    wait_until(lambda: not locked(client), 20, "the lock to be given back")


def locked(client):
    try:
        client.open_vdi("disk").close()
    except VdiLocked:
        return True
    return False


@pytest.mark.parametrize("words, complaint", [
    ((), "the following arguments are required: MOUNTPOINT"),
    (("/nowhere",), "/nowhere is no directory"),
    (("-p", "70000", "."), "argument -p/--port"),
    (("-a", "[::1", "."), "is no address"),
    (("-t", "0", "."), "timeout"),
    (("--auth-key-file", "/nowhere", "."), "No such file or directory: '/nowhere'"),
])
def test_a_wrong_command_line_is_explained(tmp_path, words, complaint):
    done = subprocess.run([sys.executable, "-m", "sheepstack.cmd.sheepfs", *words], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode in (1, 2)
    assert complaint in done.stderr and "Traceback" not in done.stderr
