"""Serving a tree of entries through libfuse, until it is unmounted."""

import os
import shutil

from sheepstack.export.sheepfs.watcher import watch

_UNMOUNT = ["fusermount3", "-u", "-z", "-q"]
#: What fuse_main() of libfuse returns where SIGTERM or its like ended what was in good order.
_ENDED_BY_SIGNAL = 8
#: Requests that wait for the cluster at a time: as many processes can be stuck in the file
#: system before one has to wait for the time-out of another.
_THREADS = 64


class CannotMount(Exception):
    """What is needed for it is not there."""


def serve(root, mountpoint: str, on_end, foreground: bool, debug: bool = False) -> int:
    """Mount ``root``, a :class:`~sheepstack.export.sheepfs.entries.Directory`.

    Returns an exit status once it is unmounted and ``on_end()`` has been called; without
    ``foreground`` the process that was called ends when it is mounted.  To be called before
    there are threads.  Raises CannotMount; what libfuse does not like it tells itself.
    """
    fuse = _load_fuse()
    from sheepstack.export.sheepfs.filesystem import Filesystem

    watch(mountpoint, _UNMOUNT)
    try:
        fuse.FUSE(Filesystem(root, on_end), mountpoint, raw_fi=True, foreground=foreground,
                  debug=debug, fsname="sheepfs", **_mount_options(fuse))
    except RuntimeError as error:
        return 0 if error.args == (_ENDED_BY_SIGNAL,) else 1
    return 0


def _load_fuse():
    try:
        import mfusepy
    except ImportError:
        raise CannotMount("mfusepy is not installed: pip install 'sheepstack[fuse]'") from None
    except OSError as error:
        raise CannotMount("libfuse is not installed: %s" % error) from None
    if mfusepy.fuse_version_major != 3:
        raise CannotMount("libfuse 3 is needed, not %d" % mfusepy.fuse_version_major)
    if shutil.which(_UNMOUNT[0]) is None:
        raise CannotMount("%s is not installed" % _UNMOUNT[0])
    return mfusepy


def _mount_options(fuse):
    options = {"subtype": "sheepfs", "default_permissions": True, "nosuid": True, "nodev": True}
    if os.geteuid() == 0:
        # With others, too, as far as the permissions of the files go.
        options["allow_other"] = True
    if fuse.fuse_version_minor >= 12:
        # Before that, libfuse starts as many threads as there are requests.
        options["max_threads"] = options["max_idle_threads"] = _THREADS
    return options
