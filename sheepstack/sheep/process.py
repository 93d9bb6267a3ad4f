"""The process around a sheep: log, pid file, signals, exit status."""

import logging
import logging.handlers
import os
import signal
import sys

from sheepstack import runtime
from sheepstack.sheep.daemon import Sheep, StartError

log = logging.getLogger(__name__)

_LEVELS = {"emerg": logging.CRITICAL, "alert": logging.CRITICAL, "crit": logging.CRITICAL,
           "err": logging.ERROR, "warning": logging.WARNING, "notice": logging.INFO,
           "info": logging.INFO, "debug": logging.DEBUG}
_FORMAT = "%(asctime)s %(levelname)-8s [%(threadName)s] %(name)s: %(message)s"
LOG_NAME = "sheep.log"


def run(options, report) -> int:
    """Run until told to end; ``report`` hears how the start went."""
    try:
        _start_log(options)
        _write_pidfile(options.pidfile)
    except OSError as error:
        report.failed(str(error))
        return 1
    logging.getLogger("sheepstack").info(
        "starting under %s, cluster %s", runtime.name, options.cluster)
    try:
        sheep = Sheep(options)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: sheep.stop())
        sheep.start()
    except StartError as error:
        log.critical("%s", error)
        report.failed(str(error))
        return 1
    report.started()
    status = sheep.wait()
    log.info("ended")
    return status


def _start_log(options):
    os.makedirs(options.store_dir, exist_ok=True)
    if options.log_dst == "stdout":
        handler = logging.StreamHandler(sys.stdout)
    elif options.log_dst == "syslog":
        handler = logging.handlers.SysLogHandler("/dev/log")
    else:
        os.makedirs(options.log_dir, exist_ok=True)
        handler = logging.handlers.WatchedFileHandler(
            os.path.join(options.log_dir, LOG_NAME))
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("sheepstack").setLevel(_LEVELS[options.log_level])
    # A full disk must not end the daemon through its log.
    logging.raiseExceptions = False


def _write_pidfile(path):
    if path:
        with open(path, "w") as file:
            file.write("%d\n" % os.getpid())
