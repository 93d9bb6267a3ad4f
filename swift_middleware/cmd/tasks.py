"""What the ``sheep-swift`` command does once and then ends."""

import configparser
import sys

from swift.common.utils import readconf

from swift_middleware.application import Application, load_policies
from swift_middleware.background import check, rebuild, sweeper
from swift_middleware.background.expirer import expire
from swift_middleware.background.reaper import reap
from swift_middleware.storage.store import TRANSIENT, Store

_SECTION = "app:proxy-server"


def run(given) -> int:
    """``given``: the command line; the exit status."""
    try:
        conf = readconf(given.config, _SECTION)
        load_policies(conf)
        app = Application(conf)
        return _TASKS[given.action](app, given)
    except (OSError, ValueError, configparser.Error, *TRANSIENT) as error:
        print("sheep-swift: %s" % error, file=sys.stderr)
        return 1


def _sweep(app, given):
    store = app.make_store()
    total = sweeper.Report()
    while True:
        report = sweeper.sweep(store, app.options)
        total = sweeper.Report(*map(sum, zip(total, report)))
        if not reap(store) and report.is_clean:
            break
    print("gave back %d slots, moved %d records, forgot %d deletions" % total)
    store.close()
    return 0


def _expire(app, given):
    store = app.make_store()
    deleted = total = expire(store)
    while deleted:
        deleted = expire(store)
        total += deleted
    print("deleted %d objects" % total)
    store.close()
    return 0


def _check(app, given):
    store = app.make_store()
    findings = check.check(store)
    for line in findings.lines():
        print(line)
    if given.repair and not findings.is_clean:
        check.repair(store, findings)
        print("repaired what can be")
        findings = check.check(store)
    store.close()
    return 0 if findings.is_clean else 1


def _rebuild(app, given):
    store: Store = app.make_store()
    found = rebuild.rebuild(store)
    print("restored %d accounts, %d containers, %d objects" % found)
    check.repair(store, check.check(store))
    store.close()
    return 0


_TASKS = {"sweep": _sweep, "expire": _expire, "check": _check, "rebuild": _rebuild}
