"""Who is at the other end of a connection.

nbdkit's Python module does not tell, but its C interface does (nbdkit-plugin(3), "PEER
NAME"), and we are in its process.  The functions count for the connection whose callback is
being carried out by the calling thread.
"""

import ctypes
import ipaddress
import socket

_ADDRESS_SIZE = 128


class _Address(ctypes.Structure):
    """The beginning of a sockaddr of Linux."""

    _fields_ = [("family", ctypes.c_ushort), ("rest", ctypes.c_ubyte * (_ADDRESS_SIZE - 2))]


def client() -> str:
    """A name that connections of one client share.

    It is the address of the host for TCP, and the process at a Unix socket; connections of
    which neither is known count as one client.
    """
    nbdkit = ctypes.CDLL(None)
    address, size = _Address(), ctypes.c_int(_ADDRESS_SIZE)
    if nbdkit.nbdkit_peer_name(ctypes.byref(address), ctypes.byref(size)) < 0:
        return "an unknown client"
    rest = bytes(address.rest)
    if address.family == socket.AF_INET:
        return str(ipaddress.ip_address(rest[2:6]))
    if address.family == socket.AF_INET6:
        return str(ipaddress.ip_address(rest[6:22]))
    nbdkit.nbdkit_peer_pid.restype = ctypes.c_int64
    return "process %d" % nbdkit.nbdkit_peer_pid()
