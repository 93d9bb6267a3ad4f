"""Console script ``sheep-nbd``."""

from sheepstack.export.nbd.command import main

__all__ = ["main"]
