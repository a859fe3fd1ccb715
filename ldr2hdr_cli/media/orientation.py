"""EXIF's orientation, 1 to 8 (CIPA DC-008, 4.6.4 A): how a picture is to be turned, and how it was."""

import numpy as np


def upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture as it is to be seen."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    across = -1 if orientation in (2, 3, 6, 7) else 1
    down = -1 if orientation in (3, 4, 7, 8) else 1
    return np.ascontiguousarray(picture[::down, ::across])


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse: an upright picture as its file stores it."""
    across = -1 if orientation in (2, 3, 6, 7) else 1
    down = -1 if orientation in (3, 4, 7, 8) else 1
    flipped = upright[::down, ::across]
    return np.ascontiguousarray(flipped.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else flipped)
