"""Highlights that a source brings itself, put together with those that the network makes up."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_SURE = 1 / 4  # stops below the map's maximum up to which it is believed; what is coded in a JPEG is off by less
_FULL = 1 / 16  # stops below it from which on it counts as reached


class OwnLight(NamedTuple):
    """What a gain map says of a picture.

    gain: linear factor by which the source is brighter than its base picture, float32 H×W×1 or H×W×3, > 0. most: the
    largest that the map can say, one value or three. is_all: the source's light is taken alone, without the network's.
    """

    gain: Tensor
    most: Sequence[float]
    is_all: bool = False

    def of(self, rows: slice) -> "OwnLight":
        return self._replace(gain=self.gain[rows])

    def beside(self, hdr: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """The source's own light below the map's maximum; where it is at that and clipped, the network's if brighter.

        hdr: what eq. 1 gave, linear, H×W×3; in the source's primaries and before any exposure, as the map is meant.
        seen: the base picture, linear, of the same shape. mask: M of eq. 1. Never below seen · gain, and equal to it
        where the mask is 1 or the gain is below its maximum.
        """
        own = seen * self.gain
        if self.is_all:
            return own
        return own + self.made_up(mask) * (hdr - own).clip(0)

    def made_up(self, mask: Tensor) -> Tensor:
        """1 − M of eq. 1 where the gain is at its maximum, less below that, and 0 where the map is believed."""
        if self.is_all:
            return torch.zeros_like(mask)
        limit, lower = (
            torch.tensor([value * 2**-below for value in self.most], dtype=mask.dtype, device=mask.device)
            for below in (_FULL, _SURE)
        )
        return (1 - mask) * ((self.gain - lower) / (limit - lower)).clip(0, 1)
