"""Cinder's other backup drivers, for volumes that lie in sheep.

They read and write a volume that is attached to cinder-backup.  A process that has
:mod:`cinder_driver.connector` needs no kernel for that, and to name a class of this module as
``backup_driver`` is what has it import that.
"""

from cinder.backup.drivers import nfs, posix, s3, swift

import cinder_driver.connector  # noqa: F401 - to be had is all that it is for


class PosixBackupDriver(posix.PosixBackupDriver):
    """Backups in files of a directory."""


class NFSBackupDriver(nfs.NFSBackupDriver):
    """Backups in files of an NFS share."""


class SwiftBackupDriver(swift.SwiftBackupDriver):
    """Backups in Swift."""


class S3BackupDriver(s3.S3BackupDriver):
    """Backups in S3."""
