"""Many small requests at a time."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Callable, Iterable, Iterator

_THREADS = 8
_WINDOW = 256


def in_order(function: Callable, items: Iterable) -> Iterator:
    """``function`` of each item, in the order of the items but several at a time.

    Raises what ``function`` raises.  At most a few hundred items are taken ahead.
    """
    items = iter(items)
    with ThreadPoolExecutor(_THREADS) as threads:
        while True:
            window = list(islice(items, _WINDOW))
            if not window:
                return
            yield from threads.map(function, window)
