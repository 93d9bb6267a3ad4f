"""Options that every command shares, and where their defaults come from."""

import os
import socket
from types import SimpleNamespace

from sheepstack.dog.exits import Exit, Failure
from sheepstack.dog.options import Option, flag
from sheepstack.wire import auth
from sheepstack.wire.errors import LocalProtocolError
from sheepstack.wire.opcodes import LISTEN_PORT

DEFAULT_ADDRESS = "127.0.0.1"
ADDRESS_VARIABLE = "SHEEPDOG_DOG_ADDR"
PORT_VARIABLE = "SHEEPDOG_DOG_PORT"
KEY_FILE_VARIABLE = "SHEEPSTACK_AUTH_KEY_FILE"


class CommonSettings(SimpleNamespace):
    """What the shared options say; commands add fields of their own."""

    def __init__(self, **own):
        super().__init__(address=DEFAULT_ADDRESS, port=LISTEN_PORT, raw=False, verbose=False,
                         help=False, time=False, auth_key_file=None, **own)

    def read_environment(self, environment=os.environ) -> None:
        if ADDRESS_VARIABLE in environment:
            self.set_address(environment[ADDRESS_VARIABLE])
        if PORT_VARIABLE in environment:
            self.set_port(environment[PORT_VARIABLE])
        self.auth_key_file = environment.get(KEY_FILE_VARIABLE) or None

    def set_address(self, text: str) -> None:
        if not text.startswith("unix:"):
            try:
                socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise Failure("Invalid ip address %s" % text) from None
        self.address = text

    def set_port(self, text: str) -> None:
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
            raise Failure("Invalid port number '%s'" % text, code=Exit.USAGE)
        self.port = int(text)

    @property
    def gateway(self) -> str:
        """The address of the sheep to talk to, as the client library takes it."""
        if self.address.startswith("unix:"):
            return self.address
        host = "[%s]" % self.address if ":" in self.address else self.address
        return "%s:%d" % (host, self.port)

    def auth_key(self) -> bytes | None:
        """The cluster's secret, where a file with it was named.

        Raises :class:`Failure` for a file that cannot be read or holds no secret.
        """
        if self.auth_key_file is None:
            return None
        try:
            with open(self.auth_key_file, "rb") as file:
                return auth.check_key(file.read())
        except OSError as error:
            raise Failure("Cannot read the secret in '%s': %s"
                          % (self.auth_key_file, error.strerror), code=Exit.SYSFAIL) from None
        except LocalProtocolError as error:
            raise Failure("%s: %s" % (self.auth_key_file, error)) from None


#: Listed by a command's ``options`` like its own.
COMMON_OPTIONS = (
    Option("a", "address", True, "host of the sheep to ask, or unix:PATH of its socket "
           "(default: %s)" % DEFAULT_ADDRESS, CommonSettings.set_address),
    Option("p", "port", True, "port of the sheep to ask (default: %d)" % LISTEN_PORT,
           CommonSettings.set_port),
    flag("r", "raw", "no headings, single spaces, sizes in bytes", "raw"),
    flag("v", "verbose", "say more", "verbose"),
    flag("h", "help", "show this help", "help"),
    flag("T", "time", "show how long it took", "time"),
)

#: Understood by every command.
KEY_FILE_OPTION = Option(
    "", "auth-key-file", True, "file with the cluster's secret",
    lambda settings, path: setattr(settings, "auth_key_file", path))
