"""The thrasher: a cluster of real sheep, clients that use it, a nemesis that breaks it.

``python -m tests.thrash --help`` tells how to run it.  :mod:`~tests.thrash.history` is what
clients note down, :mod:`~tests.thrash.checker` judges it, :mod:`~tests.thrash.offline`
compares what is left on the disks.
"""
