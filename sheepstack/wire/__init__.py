"""Sheepdog's protocol as pure values: numbers, headers, inodes, object ids, hashing.

Nothing here opens a socket, reads a clock or starts a thread.  Sizes, numbers and
layouts are those of protocol version 2 as published in the C project's headers
``include/sheepdog_proto.h`` and ``include/internal_proto.h``.  All integers are
little-endian, as on the machines that Sheepdog ran on.
"""
