"""What a store knows about itself and the cluster it belongs to: a JSON object."""

import json
import threading

from sheepstack.store.errors import BadStore
from sheepstack.store.slots import SlotFile


class Identity:
    """A dictionary on disk, for few and small values; bytes: :mod:`sheepstack.store.slots`."""

    def __init__(self, path):
        """Raises BadStore, NoSpace, StoreIOError."""
        self._lock = threading.Lock()
        self._file = SlotFile(path)
        value = self._file.value
        try:
            self._fields = {} if value is None else json.loads(value)
            if type(self._fields) is not dict:
                raise ValueError("not an object")
        except ValueError as error:
            raise BadStore("%s: %s" % (path, error)) from None

    def get(self, name, default=None):
        """The value of field ``name``: anything that JSON can hold."""
        with self._lock:
            return self._fields.get(name, default)

    def all(self) -> dict:
        """A copy of all fields."""
        with self._lock:
            return dict(self._fields)

    def update(self, **fields):
        """Sets fields, None to remove one; all or none of them, durable on return.

        Raises NoSpace, StoreIOError; TypeError and ValueError for what cannot be stored.
        """
        with self._lock:
            merged = {name: value for name, value in {**self._fields, **fields}.items()
                      if value is not None}
            self._file.replace(json.dumps(merged, sort_keys=True).encode("utf-8"))
            self._fields = merged

    def close(self):
        self._file.close()
