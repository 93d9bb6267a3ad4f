"""Small files of text: some tell the state of things, some take an order, some do both."""

import errno

from sheepstack.export.sheepfs.entries import Entry, OpenFile, wants_to_read, wants_to_write


class TextFile(Entry):
    """``tell()`` returns the text of the moment, as bytes; ``order(text)`` takes what is
    written, as str without the end of its line.  Either may be None.
    """

    def __init__(self, tell=None, order=None):
        super().__init__((0o444 if tell else 0) | (0o200 if order else 0))
        self._tell = tell
        self._order = order

    def open(self, flags):
        if wants_to_read(flags) and self._tell is None:
            raise OSError(errno.EACCES, "can only be written")
        if wants_to_write(flags) and self._order is None:
            raise OSError(errno.EACCES, "can only be read")
        return _OpenText(self._tell() if wants_to_read(flags) else b"", self._order)

    def truncate(self, size):
        # A shell does that before it writes.
        if self._order is None or size:
            super().truncate(size)


class _OpenText(OpenFile):
    """The text stays as it was when the file was opened, however it is read."""

    def __init__(self, text, order):
        self._text = text
        self._order = order

    def read(self, size, offset):
        return self._text[offset:offset + size]

    def write(self, data, offset):
        self._order(data.decode("utf-8", "surrogateescape").removesuffix("\n"))
        return len(data)
