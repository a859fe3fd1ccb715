"""A file is either whole or absent: every result goes through here."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from model.errors import Ldr2hdrError


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Put `data` in `path`, by way of a hidden `.tmp` file in the same directory and a rename.

    A reader, and a run that is killed half-way, see the old file or the new one, never a part. The rename is
    atomic because both names lie in one directory, hence on one file system (POSIX.1-2017, `rename`).

    Raises Ldr2hdrError when the directory is missing or not writable, or the disk is full; the temporary
    file is removed then, and whatever stood at `path` stays.
    """
    path = Path(path)
    temporary = path.with_name(f".ldr2hdr-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            # After a power cut a renamed file could otherwise stand there empty; and a network disk tells only here
            # that it is full.
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (the name that says what it does)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Ldr2hdrError(
            f"{path} cannot be written ({reason}): make space, allow writing, or choose another directory."
        ) from error
    finally:
        # Gone already after the rename; left behind by a full disk or an interrupt.
        with suppress(OSError):
            temporary.unlink()
