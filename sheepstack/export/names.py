"""What VDIs and snapshots are called where one word is all: ``VDI``, ``VDI@TAG``, ``VDI@ID``."""

_MARK = "@"


def name_of(vdi: str, snapshot: str | int | None = None) -> str:
    """``snapshot``: None, or the tag or id of one."""
    return vdi if snapshot is None else "%s%s%s" % (vdi, _MARK, snapshot)


def meanings_of(name: str) -> list:
    """(VDI, snapshot) of all that a name may stand for; the first that is there is meant.

    VDIs and tags can have the mark in their names, and a tag may be a number.
    """
    found = [(name, None)]
    vdi, mark, word = name.rpartition(_MARK)
    if mark and vdi and word:
        found.append((vdi, word))
        if word.isascii() and word.isdigit():
            found.append((vdi, int(word)))
    return found
