"""The ``sheep-swift`` command."""

import argparse
import gc
import os
import resource
import shutil
import sys
import tempfile

_COLLECT_AFTER = 20000, 10, 20


def build_parser():
    parser = argparse.ArgumentParser(
        prog="sheep-swift", description="A Swift-compatible object API on sheep.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = actions.add_parser(
        "serve", help="answer requests", description="Answer requests until told to stop. "
        "Without --config a configuration is made in the state directory at the first start: "
        "a user of tempauth, SQLite, and a sheep cluster on this host.")
    _add_config(serve)
    serve.add_argument("--bind", metavar="ADDR", default="127.0.0.1",
                       help="address of a configuration that is made (default: 127.0.0.1)")
    serve.add_argument("--port", metavar="PORT", type=int, default=8080,
                       help="its port (default: 8080)")
    serve.add_argument("--workers", metavar="N", type=int, default=2,
                       help="its number of processes (default: 2)")
    serve.add_argument("--sheep", metavar="ADDR,...", default="127.0.0.1:7000",
                       help="its gateways of the cluster (default: 127.0.0.1:7000)")
    for name, text in (
            ("sweep", "give back what nobody needs any more, once"),
            ("expire", "delete the objects whose time is over, once"),
            ("check", "compare the database with the cluster"),
            ("rebuild", "make the database anew from what is in the cluster")):
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        _add_config(action)
        if name == "check":
            action.add_argument("--repair", action="store_true",
                                help="give back space that belongs to nothing")
    return parser


def _add_config(parser):
    parser.add_argument("-c", "--config", metavar="FILE", help="a paste file of a Swift proxy")
    parser.add_argument("--state-dir", metavar="DIR", default="/var/lib/sheep-swift",
                        help="where a configuration is made (default: /var/lib/sheep-swift)")


def main(arguments=None) -> int:
    given = build_parser().parse_args(arguments)
    from swift.common import utils
    utils.monkey_patch()
    from swift_middleware.cmd import embedded

    try:
        if given.config is None:
            given.config = embedded.configuration(given)
        elif not os.path.exists(given.config):
            raise OSError("there is no file '%s'" % given.config)
    except OSError as error:
        print("sheep-swift: %s" % error, file=sys.stderr)
        return 1
    if given.action == "serve":
        return _serve(given.config)
    from swift_middleware.cmd import tasks
    return tasks.run(given)


def _serve(config):
    from swift.common.wsgi import run_wsgi

    # The numbers of all workers together; it has to be said before any of them is made.
    directory = tempfile.mkdtemp(prefix="sheep-swift-")
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", directory)
    # A request makes hundreds of objects, few of which refer to one another in a circle.
    gc.set_threshold(*_COLLECT_AFTER)
    # Each client is one of them, and a worker has a thousand (max_clients).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parent = os.getpid()
    try:
        return run_wsgi(config, "proxy-server", verbose=True)
    except Exception as error:
        # Swift has no class for it that the port is taken.
        if not isinstance(error, (OSError, ValueError)) and type(error) is not Exception:
            raise
        print("sheep-swift: %s" % error, file=sys.stderr)
        return 1
    finally:
        if os.getpid() == parent:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
