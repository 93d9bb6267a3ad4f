"""Opcodes and request flags.

Client opcodes stay below 0x80.  Those from 0x82 to 0xCD are the administration
opcodes that a C ``dog`` sends.  Those from 0xE0 are sheepstack's own: they are spoken
between sheep and for authentication, and mean nothing to a C Sheepdog.
"""

import enum


class Op(enum.IntEnum):
    """Opcode of a request (one byte)."""

    CREATE_AND_WRITE_OBJ = 0x01
    READ_OBJ = 0x02
    WRITE_OBJ = 0x03
    REMOVE_OBJ = 0x04
    DISCARD_OBJ = 0x05

    NEW_VDI = 0x11
    LOCK_VDI = 0x12
    RELEASE_VDI = 0x13
    GET_VDI_INFO = 0x14
    READ_VDIS = 0x15
    FLUSH_VDI = 0x16
    DEL_VDI = 0x17
    GET_CLUSTER_DEFAULT = 0x18

    GET_NODE_LIST = 0x82
    MAKE_FS = 0x84
    SHUTDOWN = 0x85
    STAT_SHEEP = 0x86
    STAT_CLUSTER = 0x87
    GET_VDI_ATTR = 0x89
    FORCE_RECOVER = 0x8A
    GET_STORE_LIST = 0x90
    CLEANUP = 0x94
    STAT_RECOVERY = 0x97
    FLUSH_DEL_CACHE = 0x98
    NOTIFY_VDI_DEL = 0x99
    KILL_NODE = 0x9A
    GET_OBJ_LIST = 0xA1
    GET_EPOCH = 0xA2
    CREATE_AND_WRITE_PEER = 0xA3
    READ_PEER = 0xA4
    WRITE_PEER = 0xA5
    ENABLE_RECOVER = 0xA8
    DISABLE_RECOVER = 0xA9
    GET_VDI_COPIES = 0xAB
    FLUSH_NODES = 0xAD
    MD_INFO = 0xB1
    MD_PLUG = 0xB2
    MD_UNPLUG = 0xB3
    GET_HASH = 0xB4
    REWEIGHT = 0xB5
    STAT = 0xB8
    GET_LOGLEVEL = 0xB9
    SET_LOGLEVEL = 0xBA
    EXIST = 0xBD
    CLUSTER_INFO = 0xBE
    ALTER_CLUSTER_COPY = 0xBF
    ALTER_VDI_COPY = 0xC0
    DECREF_OBJ = 0xC1
    REPAIR_REPLICA = 0xC5
    OIDS_EXIST = 0xC6
    INODE_COHERENCE = 0xC8
    READ_DEL_VDIS = 0xC9
    GET_RECOVERY = 0xCA
    SET_RECOVERY = 0xCB
    SET_VNODES = 0xCC
    GET_VNODES = 0xCD

    AUTH_HELLO = 0xE0
    AUTH_PROVE = 0xE1
    CLUSTER_MAP = 0xE2
    SNAPSHOT_TOGETHER = 0xE3
    DIRECT_HELLO = 0xE4
    DIRECT_ATTACH = 0xE5
    DIRECT_OPEN = 0xE6
    PEER = 0xE8


FIRST_INTERNAL_OPCODE = 0x80


class Flag(enum.IntFlag):
    """Request flags (16 bits).  Without WRITE, ``data_length`` is what the client accepts back."""

    WRITE = 0x01
    COW = 0x02
    CACHE = 0x04
    DIRECT = 0x08
    PIGGYBACK = 0x10
    TGT = 0x20
    FWD = 0x40
    RECOVERY = 0x80
    WILDCARD = 0x100


class AttrFlag(enum.IntFlag):
    """Flags of GET_VDI_ATTR, where they share bits with other meanings of :class:`Flag`."""

    CREAT = 0x100
    EXCL = 0x200
    DEL = 0x400


class LockType(enum.IntEnum):
    """``vdi.type`` of LOCK_VDI and RELEASE_VDI."""

    NORMAL = 0
    SHARED = 1


class ClusterFlag(enum.IntFlag):
    """Cluster-wide flags chosen when a cluster is formatted."""

    STRICT = 0x01
    DISKMODE = 0x02
    AUTO_VNODES = 0x04
    USE_LOCK = 0x08
    RECYCLE_VID = 0x10
    AVOID_DISKFULL = 0x20


PROTO_VER = 0x02
SHEEP_PROTO_VER = 0x0A
LISTEN_PORT = 7000
