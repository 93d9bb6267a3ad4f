"""Console script ``sheep-iscsi``."""

from sheepstack.export.iscsi.command import main

__all__ = ["main"]
