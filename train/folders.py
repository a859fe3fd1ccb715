"""The folders that a run or a patch store is written to."""

import os
from pathlib import Path

from model.errors import Ldr2hdrError


def make_folder(path: Path) -> None:
    """Creates a folder to write to. Raises Ldr2hdrError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be created ({error.strerror}); choose another --out.") from None
    if not os.access(path, os.W_OK):
        raise Ldr2hdrError(f"{path} is not writable; choose another --out.")
