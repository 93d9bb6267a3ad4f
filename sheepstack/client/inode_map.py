"""The part of a VDI's map that is known: which VDI owns each data object.

The map has 2^20 entries of four bytes; it is read a page at a time, as needed.  An entry is
the id of the VDI whose object holds the data: the VDI's own, an ancestor's, or 0 where
nothing was ever written.
"""

from itertools import compress

from sheepstack.wire.inode import pack_map, unpack_map
from sheepstack.wire.inode_layout import DATA_INDEX, data_vdi_id_offset

PAGE_SHIFT = 14
PAGE_ENTRIES = 1 << PAGE_SHIFT
PAGE_BYTES = 4 * PAGE_ENTRIES
_MASK = PAGE_ENTRIES - 1


class InodeMap:
    """Pages that were installed, and changes to them.  Not locked: entries are single words.

    Entries may be *in doubt*: they were to be changed, and nobody knows whether they were, or
    will be.  Then what was read of them last need not be so any more.
    """

    def __init__(self):
        self._pages = {}
        self._doubtful = frozenset()

    def peek(self, index):
        """The entry, or None where its page is missing, or it is in doubt."""
        page = self._pages.get(index >> PAGE_SHIFT)
        if page is None or self._doubtful and index in self._doubtful:
            return None
        return page[index & _MASK]

    def as_read(self, index):
        """The entry as it was read or set last, be it in doubt; its page is there."""
        return self._pages[index >> PAGE_SHIFT][index & _MASK]

    def doubt(self, indexes):
        """Have these entries in doubt; the caller sees to it that nobody else changes that."""
        self._doubtful = self._doubtful.union(indexes)

    def trust(self, indexes):
        """Undo :meth:`doubt`."""
        if self._doubtful:
            self._doubtful = self._doubtful.difference(indexes)

    def set(self, index, vid):
        """Note a new entry; its page is there."""
        self._pages[index >> PAGE_SHIFT][index & _MASK] = vid

    def install(self, page, data):
        """A page as read from the inode; a server leaves out zeros at its end.

        Of a page that is there the entries in doubt alone: others may have been changed since.
        """
        entries = unpack_map(bytes(data[:PAGE_BYTES]).ljust(PAGE_BYTES, b"\0"))
        known = self._pages.setdefault(page, entries)
        for index in self._doubtful:
            if index >> PAGE_SHIFT == page:
                known[index & _MASK] = entries[index & _MASK]

    def install_all(self, data):
        """The whole map at once, likewise."""
        for page in range(DATA_INDEX >> PAGE_SHIFT):
            piece = data[page * PAGE_BYTES:(page + 1) * PAGE_BYTES]
            self.install(page, piece)

    def missing(self, first, last):
        """Numbers of the pages that are to be read for the entries from ``first`` to ``last``:
        those that are not there, or have some of these in doubt."""
        doubtful = {index >> PAGE_SHIFT for index in self._doubtful if first <= index <= last}
        return [page for page in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
                if page not in self._pages or page in doubtful]

    def pages(self):
        """Numbers of the pages that are there."""
        return sorted(self._pages)

    def used(self, first, last):
        """Indexes from ``first`` to ``last`` whose entry is not 0; pages that are missing
        count as unused."""
        for number in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1):
            page = self._pages.get(number)
            if page is None or page.count(0) == PAGE_ENTRIES:
                continue
            base = number << PAGE_SHIFT
            begin, end = max(first, base), min(last, base + _MASK) + 1
            yield from compress(range(begin, end), page[begin - base:end - base])

    def differing(self, other, first, last):
        """Indexes from ``first`` to ``last`` whose entry is another one than in the map
        ``other``; the pages are there in both."""
        for number in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1):
            ours, theirs = self._pages[number], other._pages[number]
            if ours == theirs:
                continue
            base = number << PAGE_SHIFT
            begin, end = max(first, base), min(last, base + _MASK) + 1
            for index in range(begin, end):
                if ours[index - base] != theirs[index - base]:
                    yield index

    def owned_by(self, vid):
        """Indexes of the known entries that are ``vid``."""
        for number in self.pages():
            page = self._pages[number]
            base = number << PAGE_SHIFT
            position = -1
            for _ in range(page.count(vid)):
                position = page.index(vid, position + 1)
                yield base + position


def page_offset(page: int) -> int:
    """Where a page lies in the inode object."""
    return data_vdi_id_offset(page << PAGE_SHIFT)


def packed_run(entries, first, count) -> bytes:
    """``count`` values from the dict ``entries`` by index, as they stand in the inode."""
    return pack_map([entries[index] for index in range(first, first + count)])
