"""How fast a cluster is: ``python -m benchmarks`` (or ``make bench``).

Three sheep with three copies run on this host.  ``--peer PEER`` sets another server of the
protocol beside them: each row is run on both in turn, and the ratio is printed.
"""
