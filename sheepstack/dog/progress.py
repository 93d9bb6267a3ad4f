"""A progress bar for long work: drawn on a terminal, absent from pipes and files.

It looks like this::

     45.0 % [===============>                  ] 180 MB / 400 MB
"""

import shutil
import sys
import threading
import time

from sheepstack.dog import output

#: Columns beside the bar: the percentage in front, the amounts behind.
_MARGIN = 30
_SECONDS_BETWEEN_DRAWINGS = 0.1


def render(done: int, total: int, width: int, raw: bool = False) -> str:
    """The bar as one line of ``width`` columns; ``raw`` writes plain numbers, not sizes."""
    percent = 100.0 * done / total if total else 100.0
    length = max(width - _MARGIN, 0)
    filled = length * done // total if total else length
    bar = "=" * filled + ">" * (filled < length) + " " * (length - filled - 1)
    line = "%5.1f %% [%s] %s / %s" % (
        percent, bar, output.size(done, raw), output.size(total, raw))
    return line[:width].ljust(width)


class Progress:
    """How much of ``total`` is done; may be advanced by several threads.

    A context manager: leaving it in good order completes the bar, leaving it by an
    exception ends the line where it stands.
    """

    def __init__(self, total: int, raw: bool = False, stream=None):
        self._total = total
        self._raw = raw
        self._stream = stream or sys.stdout
        self._visible = self._stream.isatty()
        self._lock = threading.Lock()
        self._done = 0
        self._drawn_at = 0.0

    def __enter__(self):
        self.show(0)
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self._draw(self._total)
        if self._visible:
            self._stream.write("\n")
            self._stream.flush()

    def advance(self, amount: int) -> None:
        """``amount`` more is done."""
        with self._lock:
            self._done += amount
            self._draw_now_and_then()

    def show(self, done: int, total: int | None = None) -> None:
        """``done`` in all is done, of ``total`` where that has changed."""
        with self._lock:
            self._done = done
            if total is not None:
                self._total = total
            self._draw_now_and_then()

    def line(self, text: str) -> None:
        """Write a line of text, on a terminal in the place of the bar."""
        with self._lock:
            if self._visible:
                width = shutil.get_terminal_size().columns
                self._stream.write("\r" + " " * (width - 1) + "\r")
                self._drawn_at = 0.0
            self._stream.write(text + "\n")

    def _draw_now_and_then(self):
        if time.monotonic() - self._drawn_at >= _SECONDS_BETWEEN_DRAWINGS:
            self._draw(self._done)

    def _draw(self, done):
        if not self._visible:
            return
        self._drawn_at = time.monotonic()
        # A line that fills the last column would wrap on some terminals.
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + render(min(done, self._total), self._total, width, self._raw))
        self._stream.flush()
