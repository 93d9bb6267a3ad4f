"""``dog cluster snapshot``: all snapshots of a cluster, in a directory and back.

Loading makes the images anew in the order in which their snapshots were taken, so that they
share what they shared before.  Ids of VDIs and snapshots may be others afterwards.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sheepstack.client import SheepError
from sheepstack.dog import output, vdi_map
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Exit, Failure, UsageError
from sheepstack.dog.farm import Defaults, Entry, Farm
from sheepstack.dog.parallel import in_order
from sheepstack.dog.progress import Progress
from sheepstack.dog.vdi_data import open_vdi
from sheepstack.dog.vdi_table import read_vdis
from sheepstack.redundancy.policy import from_wire
from sheepstack.wire import inode_layout as layout
from sheepstack.wire import oid as oids
from sheepstack.wire.header import ObjRequest
from sheepstack.wire.inode import InodeHeader, unpack_map
from sheepstack.wire.opcodes import Flag, Op

_THREADS = 4
_NO_PATH = "Please specify the path to %s snapshot."


class _Snapshot(NamedTuple):
    """A snapshot of an image in a farm: its inode, and {index: id of the data object}."""

    inode: InodeHeader
    objects: dict


def save(context: Context) -> None:
    tag = context.take("")
    if tag[:1].isdigit():
        raise Failure("Tag should not start with number.", code=Exit.USAGE)
    path = _path(context, "save")
    session, names = context.session, set(context.arguments)
    with _reporting("Fail to save snapshot to path: %s." % path):
        wanted = {}
        for inode in read_vdis(session):
            if inode.is_snapshot and (not names or inode.name in names):
                for oid in _objects(session, inode):
                    wanted.setdefault(oid, inode)
        if not wanted:
            raise Failure("There is nothing to save: only snapshots of images are saved.",
                          code=Exit.SYSFAIL)
        farm = Farm(path)
        if any(saved.tag == tag for saved in farm.read_log()[1]):
            raise Failure("Snapshot tag has already been used for another snapshot, please, "
                          "use another one.", code=Exit.SYSFAIL)
        info = session.cluster_info()
        farm.append(tag, _save_all(session, farm, wanted), Defaults(
            info.nr_copies, info.copy_policy, info.block_size_shift))


def _objects(session, inode):
    if inode.store_policy != vdi_map.FLAT:
        raise Failure("%s is a hyper volume: these cannot be saved" % inode.name,
                      code=Exit.SYSFAIL)
    yield oids.vdi_oid(inode.vdi_id)
    for index, vid in vdi_map.entries(session, inode):
        yield oids.data_oid(vid, index)
    for index in range(_vmstate_objects(inode)):
        yield oids.vmstate_oid(inode.vdi_id, index)


def _vmstate_objects(inode):
    return -(-inode.vm_state_size >> inode.block_size_shift)


def _save_all(session, farm, wanted):
    def save_one(item):
        oid, inode = item
        data = session.read_object(oid, oids.object_size(oid, inode.block_size))
        return Entry(oid, inode.nr_copies, inode.copy_policy, inode.block_size_shift,
                     farm.put_object(data))

    with Progress(len(wanted), raw=True) as progress:
        for entry in in_order(save_one, sorted(wanted.items())):
            progress.advance(1)
            yield entry


def list_saved(context: Context) -> None:
    with _reporting("Fail to list snapshot."):
        saved = Farm(context.take("")).read_log()[1]
    print("Index\t\tTag\t\tSnapshot Time")
    for each in saved:
        print("%d\t\t%s\t\t%s" % (each.index, each.tag, output.long_date(each.time)))


def show(context: Context) -> None:
    name = context.take("")
    path = _path(context, "show")
    with _reporting("Fail to show snapshot"):
        farm = Farm(path)
        snapshots = _snapshots(farm, farm.trunk(farm.find(name)), context.arguments)
    for number, each in enumerate(snapshots, 1):
        output.complain("%d. VDI id: %x, name: %s, tag: %s" % (
            number, each.inode.vdi_id, each.inode.name, each.inode.tag))


def load(context: Context, format_cluster) -> None:
    """``format_cluster(context)`` formats the cluster as its settings say."""
    name = context.take("")
    path = _path(context, "load")
    with _reporting("Fail to load snapshot"):
        farm = Farm(path)
        trunk = farm.trunk(farm.find(name))
        snapshots = _snapshots(farm, trunk, context.arguments)
        if context.arguments and not snapshots:
            raise Failure("Objects of specified VDIs are not found in local cluster snapshot "
                          "storage.", code=Exit.SYSFAIL)
        defaults = farm.read_log()[0]
        context.settings.copies = from_wire(defaults.copies, defaults.copy_policy)
        context.settings.block_size_shift = defaults.block_size_shift
        format_cluster(context)
        _Loader(context.session, farm, trunk).load(snapshots)


def _snapshots(farm, trunk, names):
    """Snapshots of images (of these names, if there are any), oldest first."""
    found = []
    for entry in trunk:
        if not oids.is_vdi(entry.oid):
            continue
        length = layout.DATA_VDI_ID_OFFSET + layout.DATA_INDEX_SIZE
        inode = InodeHeader.unpack(farm.get_object(entry.digest, layout.INODE_HEADER_SIZE))
        if inode.is_deleted or names and inode.name not in names:
            continue
        content = farm.get_object(entry.digest, length)
        owners = unpack_map(content[layout.DATA_VDI_ID_OFFSET:length])
        found.append(_Snapshot(inode, {
            index: oids.data_oid(vid, index) for index, vid in enumerate(owners) if vid}))
    return sorted(found, key=lambda each: (each.inode.snap_ctime, each.inode.vdi_id))


class _Loader:
    """``_bases``: of the working VDI of each name, the snapshot that it began with."""

    def __init__(self, session, farm, trunk):
        self._session = session
        self._farm = farm
        self._digests = {entry.oid: entry.digest for entry in trunk}
        self._bases = {}
        self._made = {}

    def load(self, snapshots):
        total = sum(len(each.objects) for each in snapshots)
        with Progress(total, raw=True) as progress:
            for each in snapshots:
                self._load(each)
                progress.advance(len(each.objects))
        for name, newest in {each.inode.name: each for each in sorted(
                snapshots, key=lambda each: each.inode.snap_id)}.items():
            if self._bases[name] is not newest:
                self._ask("rollback", name, self._made[newest.inode.vdi_id].snap_id)

    def _load(self, snapshot):
        inode, name = snapshot.inode, snapshot.inode.name
        parent = self._made.get(inode.parent_vdi_id)
        if name in self._bases:
            if parent is not None and parent.name == name and (
                    self._bases[name].inode.vdi_id != inode.parent_vdi_id):
                self._ask("rollback", name, parent.snap_id)
                self._bases[name] = parent.saved
            base = self._bases[name]
        elif parent is not None:
            self._ask("clone", parent.name, parent.snap_id, name)
            base = parent.saved
        else:
            self._ask("create_vdi", name, inode.vdi_size,
                      policy=from_wire(inode.nr_copies, inode.copy_policy),
                      block_size_shift=inode.block_size_shift)
            base = _Snapshot(inode, {})
        self._write(snapshot, base)
        self._made[inode.vdi_id] = self._take(snapshot)
        self._bases[name] = snapshot

    def _write(self, snapshot, base):
        """Make the working VDI, which holds ``base``, what ``snapshot`` was."""
        with open_vdi(self._session, snapshot.inode.name, writable=True) as vdi, \
                ThreadPoolExecutor(_THREADS) as threads:
            if vdi.size != snapshot.inode.vdi_size:
                vdi.resize(snapshot.inode.vdi_size)

            def put(index):
                start = index * vdi.block_size
                length = min(vdi.block_size, vdi.size - start)
                digest = self._digest(snapshot.objects.get(index))
                if length <= 0 or digest == self._digest(base.objects.get(index)):
                    return
                if digest is None:
                    vdi.discard(start, length)
                else:
                    vdi.pwrite(start, self._farm.get_object(digest)[:length])

            list(threads.map(put, sorted({*snapshot.objects, *base.objects})))
            vdi.flush()

    def _digest(self, oid):
        if oid is None:
            return None
        if oid not in self._digests:
            raise Failure("object %s was not saved" % oids.name_of(oid), code=Exit.SYSFAIL)
        return self._digests[oid]

    def _take(self, snapshot):
        """Turn the working VDI into the snapshot, with all that is said of it."""
        session, saved = self._session, snapshot.inode
        working = session.inode(session.find(saved.name))
        if saved.tag:
            self._ask("snapshot", saved.name, saved.tag)
        else:
            session.derive(working, working.vdi_id, snapshot=True)
        made = session.inode(working.vdi_id)
        for index in range(_vmstate_objects(saved)):
            data = self._farm.get_object(
                self._digest(oids.vmstate_oid(saved.vdi_id, index)))
            session.execute(ObjRequest(
                Op.CREATE_AND_WRITE_OBJ, Flag.WRITE, data_length=len(data),
                oid=oids.vmstate_oid(made.vdi_id, index), copies=made.nr_copies,
                copy_policy=made.copy_policy), data)
        session.write_object(oids.vdi_oid(made.vdi_id), made._replace(
            create_time=saved.create_time, snap_ctime=saved.snap_ctime,
            vm_clock_nsec=saved.vm_clock_nsec, vm_state_size=saved.vm_state_size).pack(),
            0, made)
        return _Made(saved.name, made.snap_id, snapshot)

    def _ask(self, method, *arguments, **keywords):
        try:
            return self._session.ask(method, *arguments, **keywords)
        except SheepError as error:
            raise Failure(str(error), code=Exit.SYSFAIL) from None


class _Made(NamedTuple):
    """A snapshot of an image in the cluster, and what it was loaded from."""

    name: str
    snap_id: int
    saved: _Snapshot


def _path(context, what):
    path = context.take_if_any()
    if path is None:
        raise Failure(_NO_PATH % what, code=Exit.USAGE)
    return path


class _reporting:
    """A context in which a failure ends with one more line."""

    def __init__(self, line):
        self._line = line

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, Failure) and not isinstance(error, UsageError):
            raise Failure(*error.lines, self._line, code=error.code) from None
