"""Console script ``dog``."""

from sheepstack.dog.main import main

__all__ = ["main"]
