"""The administrator's command line: ``dog <command> <subcommand> [options]``.

It speaks Sheepdog's own protocol through :mod:`sheepstack.client`, so it administers a
cluster of C sheep as well as ours.
"""
