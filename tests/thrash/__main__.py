"""python -m tests.thrash: thrash clusters, one after another, and say what came of it."""

import argparse
import math
import os
import pathlib
import sys

from tests.thrash import clocks
from tests.thrash.campaign import Plan
from tests.thrash.rounds import prepare, run

_USAGE = """\
Every round makes a cluster, starts clients, and breaks things until it has had its faults.
Then all is mended, and what the clients saw and what the disks hold is checked.  A round's
seed is that of the run plus its number; a round that failed is repeated with
--seed SEED --faults FAULTS and the other options as they were.
"""


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m tests.thrash", description=__doc__, epilog=_USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the first round (default: 1)")
    add("--faults", type=int, default=50, help="how many in all (default: 50)")
    add("--per-round", type=int, default=25, help="how many in a round (default: 25)")
    add("--jobs", type=int, default=1, metavar="N",
        help="so many rounds side by side (default: 1)")
    add("--minutes", type=float, default=math.inf, help="begin no round after that time")
    add("--runtime", choices=("eventlet", "threading", "both"), default="both",
        help="of the sheep; both: in turn (default)")
    add("--driver", choices=("local", "zookeeper", "both"), default="both",
        help="who knows who is in the cluster; both: in turn (default)")
    root = os.geteuid() == 0
    add("--net", choices=("plain", "namespaces"), default="namespaces" if root else "plain",
        help="namespaces: a network that breaks, too; for root, and root's default")
    add("--sheep", type=int, default=5, help="in the beginning, at least four (default: 5)")
    add("--owners", type=int, default=3, help="clients with VDIs of their own (default: 3)")
    add("--sharers", type=int, default=2, help="clients on the same VDI (default: 2)")
    add("--nosync", action="store_true", help="sheep that do not wait for the disk")
    add("--lock", action="store_true", help="format the cluster so that VDIs are locked")
    add("--disk", type=int, default=600 if root else 0, metavar="MIB",
        help="give each sheep a disk of that size that gets full; for root, who has 600 MiB by "
        "default; 0: the same disk for all")
    add("--no-clock", action="store_true",
        help="leave the clocks alone, which libfaketime changes where it is installed")
    add("--policy", default="3", metavar="COPIES",
        help="as for 'dog cluster format -c', e.g. 2:1 (default: 3)")
    add("--only", nargs="+", default=(), metavar="FAULT", help="do these kinds alone")
    add("--dir", type=pathlib.Path, help="where the stores are (default: a temporary one)")
    add("--keep", action="store_true", help="keep the directory of rounds that succeeded, too")
    add("--stop", action="store_true", help="stop after the first round that failed")
    add("-v", "--verbose", action="store_true", help="tell what happens when it happens")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    options = _options(arguments)
    prepare(options.verbose)
    done, rounds, failed = 0, 0, []
    for verdict in run(_plans(options), options.jobs, 60 * options.minutes, options.verbose,
                       directory=options.dir, keep=options.keep):
        print(verdict, flush=True)
        rounds += 1
        done += verdict.faults_done
        if verdict.violations:
            failed.append(verdict.plan.seed)
            if options.stop:
                break
    print("%d faults in %d rounds: %s" % (
        done, rounds, "violations with seeds %s" % ", ".join(map(str, failed)) if failed
        else "no violation"))
    return 1 if failed else 0


def _plans(options):
    runtimes = {"both": ("eventlet", "threading")}.get(options.runtime, (options.runtime,))
    drivers = {"both": ("local", "zookeeper")}.get(options.driver, (options.driver,))
    for number in range(-(-options.faults // options.per_round)):
        runtime = runtimes[number % len(runtimes)]
        yield Plan(
            seed=options.seed + number,
            faults=min(options.faults - number * options.per_round, options.per_round),
            runtime=runtime, driver=drivers[number // len(runtimes) % len(drivers)],
            net=options.net, sheep=options.sheep, owners=options.owners,
            sharers=options.sharers, sync=not options.nosync, lock=options.lock,
            disk=options.disk, clock=not options.no_clock and clocks.are_possible(runtime),
            only=tuple(options.only), policy=options.policy)


if __name__ == "__main__":
    sys.exit(main())
