"""What can be wrong with bytes that claim to be Sheepdog's."""


class WireError(Exception):
    """Base of everything this package raises."""


class LocalProtocolError(WireError, ValueError):
    """Our side tried to build a message that the protocol cannot carry."""


class RemoteProtocolError(WireError):
    """The peer sent bytes that no correct peer sends."""
