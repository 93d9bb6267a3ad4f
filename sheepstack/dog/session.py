"""What commands ask of the cluster, through the client library."""

from typing import NamedTuple

from sheepstack.client import AuthenticationFailed, Cluster, ClusterUnreachable, SheepError
from sheepstack.dog.exits import Exit, Failure
from sheepstack.wire import admin, header, inode_layout, oid as oids
from sheepstack.wire.inode import InodeHeader
from sheepstack.wire.opcodes import Flag, Op
from sheepstack.wire.results import Result, describe
from sheepstack.wire.text import pad


class Reply(NamedTuple):
    """A successful answer: its 48-byte header and its payload."""

    header: bytes
    payload: bytes

    @property
    def epoch(self) -> int:
        return header.Header.unpack(self.header).epoch


class Snapshot(NamedTuple):
    """Which state of a VDI is meant: one of its snapshots, by id or by tag, or the current."""

    id: int = 0
    tag: str = ""

    def __bool__(self):
        return bool(self.id or self.tag)

    @property
    def key(self):
        """What the client library takes: the id, the tag, or None for the current state."""
        return self.id or self.tag or None


def reason(error: SheepError) -> str:
    """The words for a result; raises what the client found out by itself, which has none."""
    if error.result is None:
        raise error
    return describe(error.result)


_CODES = {
    Result.NO_SPACE: Exit.FULL,
    Result.NO_VDI: Exit.MISSING,
    Result.VDI_EXIST: Exit.EXISTS,
}


def code_of(error: SheepError) -> Exit:
    """The exit code of a command that ends with ``error``."""
    if isinstance(error, (ClusterUnreachable, AuthenticationFailed)):
        return Exit.SYSFAIL
    return _CODES.get(error.result, Exit.FAILURE)


def unreachable(error: ClusterUnreachable) -> Failure:
    return Failure(str(error), code=Exit.SYSFAIL)


class Session:
    """A connection to the cluster, and to single nodes where a command asks for them.

    ``gateways``: an address, or a list of them in the order of preference.  ``timeout``:
    seconds that a request may take.
    """

    def __init__(self, gateways: str | list, auth_key: bytes | None = None,
                 timeout: float = 30.0):
        self._auth_key = auth_key
        self._timeout = timeout
        self.cluster = self._connect(gateways)
        self._nodes = None
        self._node_clusters = {}
        self.epoch = 0

    def _connect(self, gateways):
        try:
            return Cluster(gateways, auth_key=self._auth_key, timeout=self._timeout)
        except ValueError as error:
            raise Failure(str(error), code=Exit.USAGE) from None

    def close(self):
        for cluster in [self.cluster, *self._node_clusters.values()]:
            cluster.close()

    def execute(self, request, payload=b"", node: admin.NodeId | None = None) -> Reply:
        """Carry ``request`` out, by ``node`` or else by the gateway.

        Raises :class:`SheepError` for a result other than SUCCESS and :class:`Failure`
        where the sheep cannot be reached.
        """
        cluster = self.cluster if node is None else self._cluster_of(node)
        request = request._replace(proto_ver=header.version_of(request.opcode))
        try:
            return Reply(*cluster.execute(request, payload))
        except ClusterUnreachable as error:
            raise unreachable(error) from None

    def ask(self, method: str, *arguments, **keywords):
        """Call a method of the client library's cluster.

        Raises :class:`SheepError`, and :class:`Failure` where the sheep cannot be reached or
        an argument is a name that cannot be.
        """
        try:
            return getattr(self.cluster, method)(*arguments, **keywords)
        except ClusterUnreachable as error:
            raise unreachable(error) from None
        except ValueError as error:
            raise Failure(str(error)) from None

    def attempt(self, request, payload=b"", node=None) -> tuple:
        """Result and :class:`Reply`, for requests whose failures carry a payload too."""
        try:
            return Result.SUCCESS, self.execute(request, payload, node)
        except SheepError as error:
            if error.result is None:
                raise
            return error.result, Reply(error.header, error.payload)

    def _cluster_of(self, node):
        cluster = self._node_clusters.get(node)
        if cluster is None:
            host = "[%s]" % node.addr if ":" in node.addr else node.addr
            cluster = self._connect("%s:%d" % (host, node.port))
            cluster = self._node_clusters.setdefault(node, cluster)
        return cluster

    def nodes(self) -> list:
        """The members of the cluster in the order of their numbers."""
        if self._nodes is None:
            try:
                reply = self.execute(header.ObjRequest(
                    Op.GET_NODE_LIST, data_length=admin.MAX_NODES * admin.NODE_SIZE))
            except Failure as failure:
                raise Failure(*failure.lines, "Failed to get node list",
                              code=failure.code) from None
            self._nodes = sorted(admin.unpack_nodes(reply.payload),
                                 key=lambda node: node.nid.sort_key)
            self.epoch = reply.epoch
            if not self._nodes:
                raise Failure("There are no active sheep daemons")
        return self._nodes

    def zones(self) -> int:
        """How many zones store data."""
        return len({node.zone for node in self.nodes() if node.nr_vnodes})

    def cluster_info(self, node=None) -> admin.ClusterInfo:
        return admin.ClusterInfo.unpack(self.execute(header.ObjRequest(
            Op.CLUSTER_INFO, data_length=admin.MAX_CLUSTER_INFO_SIZE), node=node).payload)

    def find(self, name: str, snapshot: Snapshot = Snapshot()) -> int:
        """The id of a VDI; raises :class:`SheepError` with NO_VDI or NO_TAG."""
        return self.ask("lookup", name, snapshot.key).vdi_id

    def derive(self, inode: InodeHeader, base: int, snapshot: bool = False) -> int:
        """A new working VDI of the name, size and redundancy of ``inode``; its id.

        It begins with the data of ``base``, the id of a VDI.  ``snapshot``: the present
        working VDI becomes a snapshot first.  Raises :class:`Failure`.
        """
        payload = pad(inode.name, inode_layout.VDI_NAME_LEN)
        try:
            reply = self.execute(header.VdiRequest(
                Op.NEW_VDI, Flag.WRITE, data_length=len(payload), vdi_size=inode.vdi_size,
                base_vdi_id=base, copies=inode.nr_copies, copy_policy=inode.copy_policy,
                store_policy=inode.store_policy, block_size_shift=inode.block_size_shift,
                snapid=int(snapshot)), payload)
        except SheepError as error:
            raise Failure("Failed to create VDI %s: %s" % (inode.name, reason(error))) from None
        return header.VdiResponse.unpack(reply.header).vdi_id

    def open(self, name: str, snapshot: Snapshot = Snapshot()) -> InodeHeader:
        """The inode of a VDI; raises :class:`Failure` where there is none."""
        try:
            vid = self.find(name, snapshot)
        except SheepError as error:
            raise Failure(
                "Failed to open VDI %s (snapshot id: %d snapshot tag: %s): %s"
                % (name, snapshot.id, snapshot.tag, describe(error.result))) from None
        try:
            return self.inode(vid)
        except SheepError as error:
            what = ("snapshot %s:%s" % (name, snapshot.id or snapshot.tag)
                    if snapshot else "VDI %s" % name)
            raise Failure("Failed to read %s: %s" % (what, describe(error.result))) from None

    def read_object(self, oid: int, length: int, offset: int = 0) -> bytes:
        """``length`` bytes of an object, those included that the sheep left out as zeros."""
        reply = self.execute(header.ObjRequest(
            Op.READ_OBJ, Flag.DIRECT, data_length=length, oid=oid, offset=offset))
        gap = min(header.ObjResponse.unpack(reply.header).offset, length)
        return (bytes(gap) + reply.payload)[:length].ljust(length, b"\0")

    def write_object(self, oid: int, data, offset: int, inode: InodeHeader) -> None:
        """Write into an object that exists, kept as ``inode`` says."""
        self.execute(header.ObjRequest(
            Op.WRITE_OBJ, Flag.WRITE | Flag.DIRECT, data_length=len(data), oid=oid,
            copies=inode.nr_copies, copy_policy=inode.copy_policy, offset=offset), data)

    def inode(self, vid: int) -> InodeHeader:
        return InodeHeader.unpack(
            self.read_object(oids.vdi_oid(vid), inode_layout.INODE_HEADER_SIZE))
