"""The bytes of objects, and the records of all rows, in VDIs of a sheep cluster.

::

    store      what the rest of the application calls
    log        appends records, with the bytes of small objects, many at a time
    bulk       writes and reads the bytes of large objects
    volumes    the VDIs, and which of them this process writes to
    record     a record as bytes

Every process writes to VDIs of its own only, so no two ever write to the same object of sheep
or need a lock for it.  All of them read all VDIs.  A VDI is filled from its beginning to its
end and no part of it is ever used twice: what is given up is discarded.
"""
