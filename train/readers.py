"""How training gets its pictures: functions that it is given, since it knows no file formats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Read = Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class Readers:
    """Functions of modules, not closures, since data workers pickle them. They raise Ldr2hdrError.

    find: the pictures below some folders, sorted; an error where there are none.
    photo: a photograph, float32 H×W×3, display-encoded in [0, 1].
    hdr: an HDR picture, float32 H×W×3, linear, ≥ 0.
    A picture that `photo` or `hdr` raises an error for is named once and left out.
    """

    find: Callable[[Sequence[Path], Literal["photo", "hdr"]], list[Path]]
    photo: Read
    hdr: Read
