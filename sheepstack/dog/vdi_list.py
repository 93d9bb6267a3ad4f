"""``dog vdi list``, ``tree`` and ``graph``: what VDIs there are."""

from typing import Iterator

from sheepstack.dog import output, treeview, vdi_map
from sheepstack.dog.command import Context
from sheepstack.dog.parallel import in_order
from sheepstack.dog.vdi_table import read_vdis
from sheepstack.wire import oid as oids
from sheepstack.wire.inode import InodeHeader

HEADING = ("  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies  Tag"
           "   Block Size Shift")


def list_lines(context: Context) -> Iterator[str]:
    """What ``dog vdi list`` prints."""
    name = context.take_if_any()
    oid = context.settings.oid
    yield from context.headings(HEADING)
    chosen = (inode for inode in read_vdis(context.session)
              if name is None or inode.name == name)
    if name is None and oid is not None:
        chosen = (inode for inode in chosen if _refers_to(context, inode, oid))
    yield from in_order(lambda inode: row(context, inode), chosen)


def _refers_to(context, inode, oid):
    if not oids.is_data(oid) or not oids.vid_of(oid):
        return False
    return vdi_map.owner(context.session, inode, oids.index_of(oid)) == oids.vid_of(oid)


def row(context: Context, inode: InodeHeader) -> str:
    """The line of a VDI in the listing."""
    own, shared = vdi_map.usage(context.session, inode)
    size = context.size
    created = output.clock_seconds(inode.create_time)
    copies = output.redundancy(inode.nr_copies, inode.copy_policy)
    if context.raw:
        return "%s %s %d %s %s %s %d %x %s %s %d" % (
            kind(inode, "="), output.escaped(inode.name), snapshot_id(inode),
            size(inode.vdi_size), size(own * inode.block_size), size(shared * inode.block_size),
            created, inode.vdi_id, copies, inode.tag, inode.block_size_shift)
    return "%s %-8s %5d %7s %7s %7s %s  %7x %6s %13s %3d" % (
        kind(inode, " "), inode.name, snapshot_id(inode), size(inode.vdi_size),
        size(own * inode.block_size), size(shared * inode.block_size), output.minute(created),
        inode.vdi_id, copies, inode.tag, inode.block_size_shift)


def kind(inode: InodeHeader, otherwise: str) -> str:
    """``s`` for a snapshot, ``c`` for a clone."""
    if inode.is_snapshot:
        return "s"
    return "c" if inode.snap_id == 1 and inode.parent_vdi_id else otherwise


def snapshot_id(inode: InodeHeader) -> int:
    """The number of a snapshot, 0 for what is none."""
    return inode.snap_id if inode.is_snapshot else 0


def tree(context: Context) -> None:
    highlight = output.on_terminal()
    leaves = []
    for inode in read_vdis(context.session):
        if inode.is_snapshot:
            label = "[%s]" % output.minute(output.clock_seconds(inode.create_time))
        else:
            label = "(you are here)"
        leaves.append(treeview.Leaf(inode.name, label, inode.vdi_id, inode.parent_vdi_id,
                                    highlight and not inode.is_snapshot))
    for line in treeview.render(leaves):
        print(line)


def graph(context: Context) -> None:
    print('digraph G {\n'
          '  node [shape = "box", fontname = "Courier"];\n\n'
          '  "0" [shape = "ellipse", label = "root"];\n')
    for inode in read_vdis(context.session):
        created = output.clock_seconds(inode.create_time)
        name = inode.name.replace("\\", "\\\\").replace('"', '\\"')
        print('  "%x" -> "%x";' % (inode.parent_vdi_id, inode.vdi_id))
        print('  "%x" [\n    group = "%s",' % (inode.vdi_id, name))
        print('    label = "Name: %10s\\nTag:  %10x\\nSize: %10s\\nDate: %10s\\nTime: %10s"%s' % (
            name, snapshot_id(inode), output.size(inode.vdi_size), output.day(created),
            output.time_of_day(created), "" if inode.is_snapshot else ",\n    color=\"red\""))
        print("  ];\n")
    print("}")
