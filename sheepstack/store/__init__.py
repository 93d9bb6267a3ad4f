"""Objects on disk: crash-safe, checksummed, and quick to read and write.

``ObjectStore`` in :mod:`sheepstack.store.objects` is what a sheep uses.
"""

from sheepstack.store.errors import (
    BadStore, NoObject, NoSpace, Rotten, StoreError, StoreIOError, StoreLocked)
from sheepstack.store.objects import ObjectStore

__all__ = ["BadStore", "NoObject", "NoSpace", "ObjectStore", "Rotten", "StoreError",
           "StoreIOError", "StoreLocked"]
