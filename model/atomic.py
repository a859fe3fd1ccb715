"""A file is either whole or absent: whatever is written, here, in training or by the command, goes through here."""

import contextlib
import errno
import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.errors import Ldr2hdrError

PREFIX, SUFFIX = ".ldr2hdr-", ".tmp"
"""Of the name that a file has while it is written."""


def replace_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Put what `write` writes to an open binary file in `path`, by way of a hidden file beside it and a rename.

    A reader, and a run that is killed half-way, see the old file or the new one, never a part. The rename is atomic
    because both names lie in one directory, hence on one file system (POSIX.1-2017, `rename`). File and directory are
    flushed to the disk, so that a power cut leaves the same. The mode is what the umask allows, as of any new file.

    Raises OSError, and what `write` raises; the hidden file is removed then, and whatever stood at `path` stays.
    """
    path = Path(path)
    temporary = path.with_name(f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            # A renamed file could otherwise stand there empty; and a network disk tells only here that it is full.
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (the name that says what it does)
        _sync_directory(path.parent)
    finally:
        # Gone already after the rename; left behind by a full disk or an interrupt.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """`replace_atomically` with bytes that are there already. Raises Ldr2hdrError where the file cannot be written."""
    try:
        replace_atomically(path, lambda file: file.write(data))
    except OSError as error:
        reason = error.strerror or str(error)
        raise Ldr2hdrError(
            f"{path} cannot be written ({reason}): make space, allow writing, or choose another directory."
        ) from error


def make_folder(path: Path) -> None:
    """Creates a folder to write to, with its parents. Raises Ldr2hdrError where that, or writing there, cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be created ({error.strerror}); choose another folder.") from None
    if not os.access(path, os.W_OK):
        raise Ldr2hdrError(f"{path} is not writable; choose another folder.")


def sweep(folder: Path, before: float = math.inf) -> None:
    """Remove what a killed process left half-written directly in `folder`.

    before: only what was last written before this moment, in seconds since 1970; by default everything, which is for
    whoever alone writes there.
    """
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.stat().st_mtime < before:
                path.unlink()


def _sync_directory(folder: Path) -> None:
    """Until the directory is on the disk too, a power cut could take the new name back."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows: no way to open a directory
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
