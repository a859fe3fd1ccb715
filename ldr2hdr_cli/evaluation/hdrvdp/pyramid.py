"""The steerable pyramid (Simoncelli and Freeman 1995), with spatial filters, in torch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ldr2hdr_cli.evaluation.hdrvdp.filters import PyramidFilters


def possible_levels(height: int, width: int, filters: PyramidFilters) -> int:
    """How often a picture can be halved while the level's low-pass still fits into it."""
    levels, side = 0, min(height, width)
    while side >= len(filters.level_low):
        levels, side = levels + 1, side // 2
    return levels


def steerable_pyramid(picture: torch.Tensor, levels: int, filters: PyramidFilters) -> list[torch.Tensor]:
    """Bands of a picture, H×W, from fine to coarse: high-pass, `levels` of them, and the low-pass that is left.

    Each is orientations×H×W. Their amplitudes double from one to the next, since a level's low-pass has a gain of
    2, and are divided by that, so that all of them are in the picture's unit.
    """
    low = _filtered(picture[None], [filters.low])
    bands = [_filtered(picture[None], [filters.high])]
    for level in range(levels):
        bands.append(_filtered(low, filters.bands) / 2 ** (level + 1))
        low = _filtered(low, [filters.level_low], stride=2)
    return [*bands, low / 2 ** (levels + 1)]


def _filtered(picture: torch.Tensor, kernels: Sequence[np.ndarray], stride: int = 1) -> torch.Tensor:
    """Correlation of 1×H×W with kernels of one odd size, mirrored at the edge pixels: kernels×H×W."""
    weights = torch.as_tensor(np.stack(kernels), dtype=picture.dtype, device=picture.device)[:, None]
    margin = weights.shape[-1] // 2
    padded = F.pad(picture[None], (margin, margin, margin, margin), mode="reflect")
    return F.conv2d(padded, weights, stride=stride)[0]
