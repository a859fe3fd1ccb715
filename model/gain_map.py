"""Highlights that a source brings itself, put together with those that the network makes up.

A pure function on numpy arrays or torch tensors, as those of `model.exposure`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from model.exposure import Array

_SURE = 1 / 4  # stops below the map's maximum up to which it is believed; what is coded in a JPEG is off by less
_FULL = 1 / 16  # stops below it from which on it counts as reached


def with_gain(hdr: Array, seen: Array, gain: Array, most: Sequence[float], mask: Array) -> Array:
    """The source's own light below its maximum; where it is at its maximum and clipped, the network's if brighter.

    hdr: what eq. 1 gave, linear, H×W×3. seen: the base picture, linear, of the same shape. gain: linear factor by which
    the source is brighter than that, H×W×1 or H×W×3, > 0. most: the largest that it can say, one or three. mask: M of
    eq. 1. Never below seen · gain, and equal to it where the mask is 1 or the gain is below its maximum.
    """
    own = seen * gain
    limit = _as(gain, [value * 2**-_FULL for value in most])
    lower = _as(gain, [value * 2**-_SURE for value in most])
    unsure = ((gain - lower) / (limit - lower)).clip(0, 1)
    return own + (1 - mask) * unsure * (hdr - own).clip(0)


def _as(like: Array, values: Sequence[float]) -> Array:
    if isinstance(like, torch.Tensor):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return np.array(values, like.dtype)
