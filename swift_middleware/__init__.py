"""A Swift-compatible object API on sheep.

:func:`swift_middleware.application.app_factory` makes the WSGI application that stands in the
place of ``egg:swift#proxy`` at the end of a Swift proxy pipeline.  ::

    controllers    what the verbs of Swift's API do; Swift's own proxy controllers, with
                   everything below them replaced
    background     what goes on beside the requests: sweeper, expirer, rebuild
    storage        the bytes, in VDIs of sheep
    database       the names, in SQL

Names, metadata and listings are rows of an SQL database.  The bytes of objects are in VDIs,
and beside them is a record of every row, from which the database can be rebuilt.
"""
