"""The option ``-z``: the size of data objects as a power of two."""

from sheepstack.dog.exits import Failure

SMALLEST_SHIFT, BIGGEST_SHIFT = 20, 31


def set_block_size_shift(settings, text: str) -> None:
    """Raises :class:`Failure` for what is no number from 20 (1 MiB) to 31 (2 GiB)."""
    if (not text.isascii() or not text.isdigit()
            or not SMALLEST_SHIFT <= int(text) <= BIGGEST_SHIFT):
        raise Failure("Invalid block size shift '%s': objects have from 2^%d to 2^%d bytes"
                      % (text, SMALLEST_SHIFT, BIGGEST_SHIFT))
    settings.block_size_shift = int(text)
