"""Options that the commands of this package share."""

import os

from sheepstack.wire import auth
from sheepstack.wire.errors import LocalProtocolError

GATEWAY_VARIABLE = "SHEEPSTACK_GATEWAY"
KEY_FILE_VARIABLE = "SHEEPSTACK_AUTH_KEY_FILE"
DEFAULT_GATEWAY = "unix:/var/lib/sheepstack/sock"


def add_cluster_options(parser):
    """Let an argparse parser take ``gateway`` and ``auth_key_file``."""
    add_gateway_option(parser)
    add_auth_key_option(parser)


def add_gateway_option(parser):
    parser.add_argument(
        "-g", "--gateway", metavar="ADDRESS",
        default=os.environ.get(GATEWAY_VARIABLE) or DEFAULT_GATEWAY,
        help="sheep to go through: unix:PATH of its socket, or HOST:PORT (default: $%s, or %s)"
        % (GATEWAY_VARIABLE, DEFAULT_GATEWAY))


def add_auth_key_option(parser):
    parser.add_argument(
        "--auth-key-file", metavar="FILE", default=os.environ.get(KEY_FILE_VARIABLE) or None,
        help="file with the cluster's secret (default: $%s)" % KEY_FILE_VARIABLE)


def read_auth_key(path) -> bytes | None:
    """The secret in a file, None without one.  Raises OSError, and ValueError for no secret."""
    if path is None:
        return None
    with open(path, "rb") as file:
        try:
            return auth.check_key(file.read())
        except LocalProtocolError as error:
            raise ValueError("%s: %s" % (path, error)) from None
