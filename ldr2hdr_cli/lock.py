"""A lock on a directory that one process alone may write to, such as that of a training run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from model.atomic import sweep
from model.errors import Ldr2hdrError

LOCK = ".ldr2hdr.lock"


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Hold a directory; a second run into it is refused. The system drops the lock of a killed run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Not a lock of this thread: an iterator may be closed in another one.
        holder = FileLock(out / LOCK, timeout=0, thread_local=False)
        holder.acquire()
    except Timeout:
        raise Ldr2hdrError(f"{out} is in use by another run of ldr2hdr: wait for it, or choose another -o.") from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or str(error)
        raise Ldr2hdrError(f"{out} cannot be written ({reason}): allow writing, or choose another -o.") from None
    try:
        _sweep(out)
        yield
    finally:
        holder.release()


def _sweep(out: Path) -> None:
    """Remove what a killed run left half-written; the lock says that nobody is writing it now."""
    for folder, _, _ in os.walk(out):
        sweep(Path(folder))
