"""Rows of VDIs that are exported over NBD and iSCSI and mounted, beside a raw file through the
same server.

The file lies where our sheep have their stores, in the kernel's cache, and in one copy: a
ratio says what the cluster costs behind a server, not what another server would do better.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from benchmarks import rows
from benchmarks.cluster import HOST, BenchmarkFailed, free_port, wait_for
from benchmarks.data_rows import KIB, MIB, DataRow, requests_for
from benchmarks.table import Result
from sheepstack.export.iscsi import ANYBODY, IscsiError, Targets, Tgtd

SHAPES = ((4 * KIB, 1), (4 * KIB, 32), (64 * KIB, 8), (4 * MIB, 4))
_NAME = "iqn.2026-11.org.sheepstack.bench:disk"
_COMPLETED = re.compile(r"Run completed in ([0-9.]+) seconds")
_SHEEP_NBD = pathlib.Path(sys.executable).with_name("sheep-nbd")
_SHEEPFS = _SHEEP_NBD.with_name("sheepfs")


def measure(table, ours, settings, directory):
    """All rows: VDIs of the cluster ``ours``, a file in ``directory``."""
    name = rows.own_name("exported")
    rows.make_disk(ours, name, settings.span)
    file = pathlib.Path(directory) / "raw"
    with file.open("wb") as raw:
        for _ in range(0, settings.span, MIB):
            raw.write(os.urandom(MIB))
    try:
        for server in (_nbd, _iscsi, _sheepfs):
            missing = _missing_for(server)
            if missing:
                table.say("no rows over %s: %s is missing" % (
                    server.__name__.strip("_"), ", ".join(missing)))
                continue
            with server(ours, name, file, directory) as urls:
                for program in _PROGRAMS[server]:
                    _measure_program(table, server.__name__.strip("_"), program, urls, settings)
    finally:
        ours.client.delete_vdi(name)


def _missing_for(server):
    missing = [word for word in _NEEDS[server] if not shutil.which(word, path=_PATH)]
    if server is _iscsi and os.geteuid() != 0:
        missing.append("root's rights")
    if server is _sheepfs:
        if importlib.util.find_spec("mfusepy") is None:
            missing.append("mfusepy")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            missing.append("/dev/fuse")
    return missing


def _measure_program(table, server, program, urls, settings):
    for write in (True, False):
        for size, depth in SHAPES:
            row = DataRow(write, size, depth, size)
            values = [[], []]
            runs = [program(url, row, settings) for url in urls]
            for _ in range(settings.repeats):
                for run, found in zip(runs, values):
                    found.append(run())
            table.add(Result("%s: %s" % (server, row.name), program.__name__.strip("_"), "/s",
                             True, *values))


# -- programs: each gives a function that runs it once and returns requests a second

def _qemu(url, row, settings):
    def run(count):
        argv = ["qemu-img", "bench", "-f", "raw", "-t", "none", "-c", str(count), "-d",
                str(row.depth), "-s", str(row.size), "-S", str(row.step), url]
        if row.write:
            argv[2:2] = ["-w", "--pattern=165"]
        completed = _COMPLETED.search(_output(argv))
        if not completed:
            raise BenchmarkFailed("qemu-img bench does not say how long it took")
        # It prints milliseconds.
        return max(float(completed[1]), 0.0005)

    count = requests_for(row, settings.seconds, run)
    return lambda: count / run(count)


def _fio(url, row, settings):
    side = "write" if row.write else "read"
    engine = ["--ioengine=nbd", "--uri=" + url] if "://" in url else [
        "--ioengine=libaio", "--direct=1", "--filename=" + url]

    def run():
        printed = _output([
            "fio", "--name=bench", *engine, "--rw=" + side,
            "--bs=%d" % row.size, "--iodepth=%d" % row.depth, "--size=%d" % settings.span,
            "--time_based", "--runtime=%gs" % settings.seconds, "--output-format=json"])
        return json.loads(printed[printed.index("{"):])["jobs"][0][side]["iops"]

    return run


def _output(argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkFailed("%s: %s" % (argv[0], done.stderr.strip() or done.stdout.strip()))
    return done.stdout


# -- servers: each gives the URL of the VDI and that of the file

@contextlib.contextmanager
def _nbd(ours, name, file, directory):
    directory = pathlib.Path(directory)
    sockets = [directory / "nbd-vdi", directory / "nbd-file"]
    with _process([_SHEEP_NBD, "-g", ours.address, name, "--", "-f", "-U", sockets[0]]), \
            _process(["nbdkit", "-f", "-U", sockets[1], "file", file]):
        for socket in sockets:
            wait_for("nbdkit", socket.exists)
        yield ["nbd+unix:///%s?socket=%s" % (export, socket)
               for export, socket in zip((name, ""), sockets)]


@contextlib.contextmanager
def _iscsi(ours, name, file, directory):
    port, control = free_port(), str(pathlib.Path(directory) / "tgtd")
    environment = {**os.environ, "TGT_IPC_SOCKET": control, "PATH": _PATH}
    tgtd = Tgtd(1, control)
    with _process([shutil.which("tgtd", path=_PATH), "-f", "-C", "1", "--iscsi",
                   "portal=%s:%d" % (HOST, port)], environment):
        wait_for("tgtd", lambda: _answers(tgtd))
        Targets("unix:%s" % (ours.store(0) / "sock"), pathlib.Path(directory) / "targets",
                tgtd=tgtd).create(_NAME, name, addresses=[ANYBODY])
        for words in (["new", "--mode", "target", "--tid", "9", "-T", _NAME + "-raw"],
                      ["new", "--mode", "logicalunit", "--tid", "9", "--lun", "1", "--bstype",
                       "rdwr", "--backing-store", str(file)],
                      ["bind", "--mode", "target", "--tid", "9", "-I", ANYBODY]):
            subprocess.run(["tgtadm", "-C", "1", "--lld", "iscsi", "--op", *words], check=True,
                           env=environment)
        yield ["iscsi://%s:%d/%s/1" % (HOST, port, target)
               for target in (_NAME, _NAME + "-raw")]


@contextlib.contextmanager
def _sheepfs(ours, name, file, directory):
    vdis, files = pathlib.Path(directory) / "mounted-vdis", pathlib.Path(directory) / "mounted"
    with _mount([_SHEEPFS, "-f", "-a", ours.address, vdis], vdis), \
            _mount([sys.executable, "-m", "benchmarks.passthrough", file, files], files):
        (vdis / "vdi" / "mount").write_text(name)
        yield [str(vdis / "volume" / name), str(files / file.name)]


@contextlib.contextmanager
def _mount(argv, mountpoint):
    mountpoint.mkdir()
    with _process(argv):
        try:
            wait_for("a mount", lambda: os.path.ismount(mountpoint))
            yield
        finally:
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=True)


def _answers(tgtd):
    try:
        tgtd.targets()
    except IscsiError:
        return False
    return True


@contextlib.contextmanager
def _process(argv, environment=None):
    process = subprocess.Popen([*map(str, argv)], stdin=subprocess.DEVNULL, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        # tgtd takes no notice of being asked.
        process.kill()
        process.wait()


_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_NEEDS = {_nbd: ("nbdkit", "qemu-img", "fio"), _iscsi: ("tgtd", "tgtadm", "qemu-img"),
          _sheepfs: ("fusermount3", "qemu-img", "fio")}
#: fio has no engine for iSCSI.
_PROGRAMS = {_nbd: (_qemu, _fio), _iscsi: (_qemu,), _sheepfs: (_qemu, _fio)}
