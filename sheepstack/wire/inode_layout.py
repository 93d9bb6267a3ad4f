"""Byte offsets of the inode object and of the attribute object.

Inode (``INODE_SIZE`` = 12,587,576 bytes)::

    offset  size       field
    0       256        name, NUL-padded
    256     256        tag, NUL-padded
    512     8          create_time  (seconds << 32 | nanoseconds)
    520     8          snap_ctime   (likewise; not 0: this is a snapshot)
    528     8          vm_clock_nsec
    536     8          vdi_size, bytes
    544     8          vm_state_size, bytes
    552     1          copy_policy  (0: copies; else data/2 << 4 | parity)
    553     1          store_policy (0: flat map; 1: hyper volume)
    554     1          nr_copies
    555     1          block_size_shift
    556     4          snap_id
    560     4          vdi_id
    564     4          parent_vdi_id
    568     4          btree_counter
    572     4092       unused
    4664    4 << 20    data_vdi_id[2^20]
    4198968 8 << 20    gref[2^20]: int32 generation, int32 count

Attribute (``ATTR_SIZE`` = 66,320 bytes): name, tag (256 each), ctime u64, snap_id u32,
value_len u32, key (256), value (65,536).
"""

VDI_NAME_LEN = 256
VDI_TAG_LEN = 256
ATTR_KEY_LEN = 256
ATTR_VALUE_LEN = 65536

DATA_INDEX = 1 << 20
DATA_INDEX_SIZE = 4 * DATA_INDEX
GREF_SIZE = 8 * DATA_INDEX

INODE_HEADER_SIZE = 4664
DATA_VDI_ID_OFFSET = INODE_HEADER_SIZE
GREF_OFFSET = DATA_VDI_ID_OFFSET + DATA_INDEX_SIZE
INODE_SIZE = GREF_OFFSET + GREF_SIZE

SNAP_CTIME_OFFSET = 520
TAG_OFFSET = 256
VDI_SIZE_OFFSET = 536

ATTR_SIZE = VDI_NAME_LEN + VDI_TAG_LEN + 8 + 4 + 4 + ATTR_KEY_LEN + ATTR_VALUE_LEN


def data_vdi_id_offset(index: int) -> int:
    """Offset in the inode object of the map entry of data object ``index``."""
    return DATA_VDI_ID_OFFSET + 4 * index
