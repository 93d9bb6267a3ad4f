"""The bytes of an upload on their way: cut to size, counted and hashed."""

import concurrent.futures

from glance_store.common import utils


class HashedStream:
    """A file that hashes what is read from it, in a thread of its own.

    ``source``: has ``read(size)``, which may give fewer or more bytes than asked for, or is an
    iterator of bytes.  ``algorithm``: of the multihash, as hashlib names it.  ``verifier``:
    has ``update(bytes)``, or None.  To be used as a context manager.

    While the reader sends one piece to the sheep the next one is read and hashed.
    """

    def __init__(self, source, size_hint, algorithm, verifier):
        self.count = 0
        self.at_end = False
        self._chunks = iter(utils.chunkreadable(source, size_hint))
        self._left_over = memoryview(b"")
        self._checksum = utils.get_hasher("md5", False)
        self._multihash = utils.get_hasher(algorithm, False)
        self._verifier = verifier
        self._hasher = concurrent.futures.ThreadPoolExecutor(1, "image-hash")
        self._hashed = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._hasher.shutdown()

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end; raises what the source raises."""
        pieces = []
        missing = size
        while missing:
            if not self._left_over:
                try:
                    self._left_over = memoryview(next(self._chunks))
                except StopIteration:
                    self.at_end = True
                    break
            pieces.append(self._left_over[:missing])
            self._left_over = self._left_over[missing:]
            missing -= len(pieces[-1])
        data = b"".join(pieces)
        self.count += len(data)
        self._hash(data)
        return data

    def _hash(self, data):
        # One at a time: that keeps them in order, and memory in bounds.
        if self._hashed is not None:
            self._hashed.result()
        self._hashed = self._hasher.submit(self._update, data)

    def _update(self, data):
        self._checksum.update(data)
        self._multihash.update(data)
        if self._verifier is not None:
            self._verifier.update(data)

    def digests(self):
        """(md5, multihash) of all that was read, as hexadecimal digits."""
        if self._hashed is not None:
            self._hashed.result()
        return self._checksum.hexdigest(), self._multihash.hexdigest()
