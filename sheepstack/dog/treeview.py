"""VDIs as a tree: each VDI a line of its snapshots, which branches where it was rolled back.

It looks like this::

    alice---[2014-02-05 15:04]-+-[2014-03-01 11:42]
                               `-(you are here)
"""

from typing import Iterator, NamedTuple

BOLD, NORMAL = "\033[1m", "\033[0m"


class Leaf(NamedTuple):
    """A VDI as the tree shows it; it hangs under the VDI ``parent_vid`` of the same name."""

    name: str
    label: str
    vid: int
    parent_vid: int
    highlight: bool = False


class _Node:
    def __init__(self, leaf):
        self.leaf = leaf
        self.parent = None
        self.children = []

    def has_ancestor(self, other):
        node = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False


def _grow(leaves):
    """Root nodes, in the order of their first leaf; children whose parent came late go last."""
    known, roots = {}, []
    for leaf in leaves:
        node = _Node(leaf)
        node.parent = known.get((leaf.name, leaf.parent_vid))
        (node.parent.children if node.parent else roots).append(node)
        known.setdefault((leaf.name, leaf.vid), node)
    stay = []
    for node in roots:
        parent = known.get((node.leaf.name, node.leaf.parent_vid))
        if parent is None or parent.has_ancestor(node):
            stay.append(node)
        else:
            node.parent = parent
            parent.children.append(node)
    return stay


class _Margin(NamedTuple):
    """What stands left of a branch, kept in pieces: chains of snapshots can be long."""

    outer: "_Margin | None"
    text: str

    def __str__(self):
        pieces, margin = [], self
        while margin is not None:
            pieces.append(margin.text)
            margin = margin.outer
        return "".join(reversed(pieces))


def render(leaves) -> Iterator[str]:
    """The tree of ``leaves`` line by line."""
    for root in _grow(leaves):
        yield from _render_root(root)


def _render_root(root):
    line = root.leaf.name
    # A node to draw, the margin and width of what it hangs on, and how it is joined to it.
    waiting = [(root, None, len(root.leaf.name), "---", True)]
    while waiting:
        node, margin, width, joint, is_last = waiting.pop()
        if joint[0] != "-":
            yield line
            line = "%s%s" % (margin or "", " " * (width + 1))
        label = node.leaf.label
        line += joint + (BOLD + label + NORMAL if node.leaf.highlight else label)
        inner = _Margin(margin, " " * (width + 1) + ("  " if is_last else "| "))
        last = len(node.children) - 1
        for i in range(last, -1, -1):
            if i == 0:
                joint = "---" if last == 0 else "-+-"
            else:
                joint = "`-" if i == last else "|-"
            waiting.append((node.children[i], inner, len(label), joint, i == last))
    yield line
