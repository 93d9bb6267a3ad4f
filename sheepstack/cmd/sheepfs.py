"""Entry point of the ``sheepfs`` command."""

import sys

from sheepstack.export.sheepfs.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
