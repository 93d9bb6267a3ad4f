"""VDIs as files of a FUSE file system, and the state of the cluster as text files.

::

    /vdi/list           what dog vdi list prints
    /vdi/mount          write the name of a VDI to it, and it appears below /volume
    /vdi/unmount        write the name of a VDI to it, and it is no longer there
    /volume/<name>      the bytes of the VDI; of a snapshot where the name is <vdi>@<tag>
    /node/list          what dog node list prints
    /node/info          what dog node info prints
    /cluster/info       what dog cluster info prints
    /config/gateways    the sheep that are asked, a line each
    /config/page_cache  1: the kernel keeps what it has read of a volume; 0: it does not
    /config/read_ahead  KiB that the kernel reads ahead where it keeps what it has read
"""
