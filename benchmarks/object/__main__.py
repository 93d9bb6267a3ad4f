"""The command line: ``python -m benchmarks.object --help``."""

import argparse
import functools
import pathlib
import re
import shutil
import sys
import tempfile
from typing import NamedTuple

from benchmarks.object import cpu, names
from benchmarks.object.load import Load
from benchmarks.table import Result, Table
from tests.functional.harness import SheepCluster, free_port
from tests.swift.real_swift import RealSwift
from tests.swift.service import USUAL_PIPELINE, Account, Memcached, ObjectApi

KIB, MIB = 1 << 10, 1 << 20
SIZES = (("4 KiB", 4 * KIB), ("1 MiB", MIB), ("64 MiB", 64 * MIB))
CONNECTIONS = (1, 16)
_PAGE = 10000

#: Requests for the same page in a row.
_LISTINGS = 5


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.object", description="Measures the object API on three sheep "
        "with three copies beside Swift with three replicas, in turn, both durable, with the "
        "same pipeline, workers and client, and prints how many times better it is: in requests "
        "per second, and in processor time of all servers, which other load does not change.")
    add = parser.add_argument
    add("--workers", type=int, default=2, help="of either proxy (default: 2)")
    add("--seconds", type=float, default=5, help="for each row and repeat (default: 5)")
    add("--repeats", type=int, default=3, help="of each row (default: 3)")
    add("--names", type=int, default=1000000,
        help="in the container that is listed (default: 1000000)")
    add("--rows", metavar="REGEX", default="", help="only rows in whose names this is found, "
        "like '64 MiB at 16$' or 'listing'")
    return parser


def main(arguments=None) -> int:
    given = _parser().parse_args(arguments)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="bench-object-"))
    memcached = Memcached(), Memcached()
    cluster = SheepCluster(directory / "sheep", "local:%s" % (directory / "coordination"))
    ours = real = None
    try:
        cluster.start(3, 3)
        ours = ObjectApi(directory / "ours", cluster.addresses, memcached[0],
                         pipeline=USUAL_PIPELINE, workers=given.workers).start()
        port = free_port()
        other = ObjectApi(directory / "swift", cluster.addresses, memcached[1], port=port,
                          pipeline=USUAL_PIPELINE, workers=given.workers)
        real = RealSwift(other.config).start(port)
        state = "sqlite:///%s/state/objects.db" % ours.directory
        sides = [_Side(Load(*_login(ours.url)), {ours.process.pid, *cluster.pids},
                       functools.partial(names.fill_ours, state)),
                 _Side(Load(*_login(other.url)), real.pids,
                       functools.partial(names.fill_swifts, real.directory))]
        _measure(sides, given)
    finally:
        for server in (ours, real):
            if server is not None:
                server.stop()
        for server in (cluster, *memcached):
            server.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


class _Side(NamedTuple):
    """``leaders``: the processes of its servers, for :mod:`benchmarks.object.cpu`.
    ``fill(account, container, names)``: puts names there; see :mod:`benchmarks.object.names`."""

    load: Load
    leaders: set
    fill: object


def _login(url):
    account = Account(url)
    return account.url, account.token


def _measure(sides, given):
    table = Table("objects, %d workers" % given.workers, peer="Swift, 3 replicas")
    for label, size in SIZES:
        for connections in CONNECTIONS:
            name = "%s at %d" % (label, connections)
            if re.search(given.rows, name):
                _measure_objects(table, sides, name, size, connections, given)
    if re.search(given.rows, "listing"):
        _measure_listings(table, sides, given)


def _measure_objects(table, sides, name, size, connections, given):
    rates, costs = {}, {}
    for _ in range(given.repeats):
        for which, side in enumerate(sides):
            used = cpu.seconds(side.leaders)
            for verb, measured in side.load.objects(size, connections, given.seconds):
                before, used = used, cpu.seconds(side.leaders)
                rates.setdefault(verb, ([], []))[which].append(measured.rate)
                costs.setdefault(verb, ([], []))[which].append(
                    1000 * (used - before) / max(1, measured.count))
    for verb, (ours, theirs) in rates.items():
        table.add(Result("%s, %s" % (verb, name), "http", "/s", True, ours, theirs))
    for verb, (ours, theirs) in costs.items():
        table.add(Result("%s, %s, processor" % (verb, name), "http", "ms", False, ours, theirs))


def _measure_listings(table, sides, given):
    """A page of 10,000 names among as many, and then what is in a container of many names."""
    _list(table, sides, given, _PAGE, (("a page of %d names" % _PAGE, "limit=%d" % _PAGE),))
    if given.names > _PAGE:
        _list(table, sides, given, given.names, (
            ("a page of %d" % _PAGE, "limit=%d&marker=d500/" % _PAGE),
            ("prefix and delimiter", "prefix=d5&delimiter=/"),
            ("all by delimiter", "delimiter=/")))


def _list(table, sides, given, count, asked):
    loads = [side.load.sibling() for side in sides]
    for side, load in zip(sides, loads):
        side.fill(*load.container,
                  ("d%03d/%07d" % (number % 1000, number) for number in range(count)))
    for label, query in asked:
        times, costs = ([], []), ([], [])
        for which, (side, load) in enumerate(zip(sides, loads)):
            for _ in range(given.repeats):
                used = cpu.seconds(side.leaders)
                times[which].append(load.listing(query, _LISTINGS).seconds * 1000)
                costs[which].append(1000 * (cpu.seconds(side.leaders) - used) / _LISTINGS)
        label = "%s, of %d" % (label, count)
        table.add(Result(label, "http", "ms", False, *times))
        table.add(Result(label + ", processor", "http", "ms", False, *costs))


if __name__ == "__main__":
    sys.exit(main())
