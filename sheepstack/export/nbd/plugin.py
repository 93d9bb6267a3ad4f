"""The plugin: nbdkit's callbacks (nbdkit-python-plugin(3)), each a call of the client library.

nbdkit loads this file with its own Python and calls what it finds by name.
"""

import errno

import nbdkit

from sheepstack.client import Cluster, NoSpace, ReadOnly, SheepError, ShuttingDown
from sheepstack.export.nbd import peer
from sheepstack.export.nbd.errors import BadExport, ExportBusy
from sheepstack.export.nbd.exports import EXCLUSIVE, LOCKS, Exports
from sheepstack.export.options import read_auth_key

API_VERSION = 2

#: Up to so many bytes a copy costs less than reading into nbdkit's buffer.
_SMALL = 64 << 10
#: Sheep keep a checksum for each so many bytes.
_PREFERRED = 4096
_ANY_SIZE = 0xffffffff

_gateways = []
_only = []
_options = {"lock": EXCLUSIVE, "timeout": "60", "auth-key-file": None}
_cluster = None
_exports = None


# -- starting and ending

def config(key, value):
    if key == "gateway":
        _gateways.append(value)
    elif key == "vdi":
        _only.append(value)
    elif key in _options:
        _options[key] = value
    else:
        raise ValueError("unknown parameter '%s'" % key)


def config_complete():
    global _cluster, _exports
    if _options["lock"] not in LOCKS:
        raise ValueError("lock is one of %s" % ", ".join(LOCKS))
    _cluster = Cluster(_gateways, read_auth_key(_options["auth-key-file"]),
                       float(_options["timeout"]))
    _exports = Exports(_cluster, _only, _options["lock"])


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def cleanup():
    if _cluster is not None:
        # nbdkit does not call close() for connections that end while it does.
        _exports.close_all()
        _cluster.close()


# -- exports

def list_exports(readonly, is_tls):
    return [(name, text) for name, text in _exports.list() if _is_speakable(name)]


def _is_speakable(name):
    """Names of VDIs are bytes, those of exports are UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def default_export(readonly, is_tls):
    return _only[0] if len(_only) == 1 else ""


def open(readonly):
    try:
        return _exports.open(nbdkit.export_name(), peer.client(), readonly)
    except BadExport as error:
        raise _failed(error, errno.ENOENT) from None
    except ExportBusy as error:
        raise _failed(error, errno.EBUSY) from None
    except SheepError as error:
        raise _failed(error) from None


def close(handle):
    _exports.close(handle)


def export_description(handle):
    return "sheepstack %s" % str(handle.export)


def get_size(handle):
    return handle.vdi.size


def block_size(handle):
    return 1, _PREFERRED, _ANY_SIZE


def can_write(handle):
    return handle.writable


def can_multi_conn(handle):
    return True


def can_flush(handle):
    return True


def can_trim(handle):
    return handle.writable


def can_zero(handle):
    return handle.writable


def can_fast_zero(handle):
    return handle.writable


def can_fua(handle):
    # nbdkit calls flush() after what is to be safe; where sheep keep nothing back, it costs
    # nothing.
    return nbdkit.FUA_EMULATE


def can_extents(handle):
    return True


def is_rotational(handle):
    return False


# -- data

def pread(handle, buf, offset, flags):
    try:
        if len(buf) <= _SMALL:
            buf[:] = handle.vdi.pread(offset, len(buf))
        else:
            handle.vdi.preadinto(offset, buf)
    except SheepError as error:
        raise _failed(error) from None


def pwrite(handle, buf, offset, flags):
    try:
        handle.vdi.pwrite(offset, buf)
    except SheepError as error:
        raise _failed(error) from None


def flush(handle, flags):
    try:
        handle.vdi.flush()
    except SheepError as error:
        raise _failed(error) from None


def trim(handle, count, offset, flags):
    try:
        handle.vdi.discard(offset, count)
    except SheepError as error:
        raise _failed(error) from None


def zero(handle, count, offset, flags):
    if not flags & nbdkit.FLAG_MAY_TRIM:
        # The client wants the space to stay allocated: it is written as zeros.
        raise _failed("zeros that must not become a hole", errno.EOPNOTSUPP)
    try:
        handle.vdi.write_zeroes(offset, count)
    except SheepError as error:
        raise _failed(error) from None


def extents(handle, count, offset, flags):
    try:
        found = handle.vdi.extents(offset, count)
    except SheepError as error:
        raise _failed(error) from None
    hole = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO
    return [(start, length, 0 if is_data else hole) for start, length, is_data in found]


def _failed(error, number=None):
    """What to raise so that the client gets ``number``, or what the kind of error says."""
    if number is None:
        number = (errno.ENOSPC if isinstance(error, NoSpace) else
                  errno.EROFS if isinstance(error, ReadOnly) else
                  errno.ESHUTDOWN if isinstance(error, ShuttingDown) else errno.EIO)
    nbdkit.set_error(number)
    return OSError(number, str(error))
