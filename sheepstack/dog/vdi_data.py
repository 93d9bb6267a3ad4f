"""The bytes of a VDI: ``dog vdi read`` and ``write``, and what copies or preallocates them."""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor, wait

from sheepstack.client import SheepError, Vdi
from sheepstack.dog import vdi_map
from sheepstack.dog.command import Context
from sheepstack.dog.exits import Failure
from sheepstack.dog.output import on_terminal
from sheepstack.dog.progress import Progress
from sheepstack.dog.session import Session, Snapshot, code_of
from sheepstack.dog.sizes import parse_size

_SECONDS_BETWEEN_LOOKS = 0.5
_PIECE = 4 << 20


def open_vdi(session: Session, name: str, snapshot: Snapshot = Snapshot(),
             writable: bool = False) -> Vdi:
    """A VDI to be read or written, without its lock: an administrator is not held up by one.

    Raises :class:`Failure`.
    """
    session.open(name, snapshot)
    try:
        return session.ask("open_vdi", name, snapshot.key, read_only=not writable, lock=False)
    except SheepError as error:
        raise Failure("Failed to open VDI %s: %s" % (name, error)) from None


def _range(context):
    """Name, offset and length (or None) from the command line."""
    name = context.take("")
    sizes = [parse_size(text) for text in context.arguments[:2]]
    offset, length = (sizes + [0, None][len(sizes):])[:2]
    return name, offset, length


def read(context: Context) -> None:
    name, offset, length = _range(context)
    with open_vdi(context.session, name, context.settings.snapshot) as vdi:
        if offset > vdi.size:
            raise Failure("Read offset is beyond the end of the VDI")
        sys.stdout.flush()
        try:
            vdi.copy_out(sys.stdout.buffer, offset, length, sparse=False)
            sys.stdout.buffer.flush()
        except SheepError as error:
            raise Failure("Failed to read VDI: %s" % error) from None


def write(context: Context) -> None:
    name, offset, length = _range(context)
    with open_vdi(context.session, name, writable=True) as vdi:
        if offset > vdi.size:
            raise Failure("Write offset is beyond the end of the VDI")
        room = vdi.size - offset
        length = room if length is None else min(length, room)
        source = sys.stdin.buffer
        try:
            with Progress(min(length, _input_size(source, length))) as progress:
                vdi.copy_in(source, offset, length, progress.show)
            vdi.flush()
        except SheepError as error:
            raise Failure("Failed to write VDI: %s" % error, code=code_of(error)) from None


def _input_size(stream, otherwise):
    """Bytes left in a file; ``otherwise`` for what has no size, a pipe or a terminal."""
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        return otherwise
    return max(0, status.st_size - os.lseek(stream.fileno(), 0, os.SEEK_CUR))


def preallocate(session: Session, name: str) -> None:
    """Make the objects that a VDI does not have of its own."""
    with open_vdi(session, name, writable=True) as vdi, \
            ThreadPoolExecutor(1) as thread, Progress(vdi.size) as progress:
        work = thread.submit(vdi.preallocate)
        while on_terminal() and not wait([work], _SECONDS_BETWEEN_LOOKS).done:
            own, _ = vdi_map.usage(session, vdi.header)
            progress.show(own * vdi.block_size)
        work.result()


def copy(session: Session, old: Vdi, target: str) -> None:
    """Write all data of an open VDI to another one, which shall be empty and as big."""
    with open_vdi(session, target, writable=True) as new, Progress(old.size) as progress:
        flying = []
        for offset, length, is_data in old.extents(0, old.size):
            if is_data:
                for start in range(offset, offset + length, _PIECE):
                    size = min(_PIECE, offset + length - start)
                    flying.append(new.submit_pwrite(start, old.pread(start, size)))
                    if len(flying) == 4:
                        flying.pop(0).result()
                    progress.show(start + size)
            progress.show(offset + length)
        for future in flying:
            future.result()
        new.flush()
