"""The steerable pyramid's filters, as published with it.

Simoncelli and Freeman 1995, "The Steerable Pyramid: A Flexible Architecture for Multi-Scale Derivative
Computation" (ICIP); designed as in Karasaridis and Simoncelli 1996, "A Filter Design Technique for Steerable
Pyramid Image Transforms" (ICASSP). The taps are those of the authors' matlabPyrTools: MIT License, copyright (c)
2015 LabForComputationalVision. What symmetry gives is not stored: of an isotropic filter, the octant from the
corner to the centre.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PyramidFilters:
    """2-D kernels for correlation: first high-pass and low-pass, then each level's low-pass and bands."""

    high: np.ndarray
    low: np.ndarray
    level_low: np.ndarray
    bands: tuple[np.ndarray, ...]


@lru_cache
def isotropic_filters() -> PyramidFilters:
    """One band a level: "sp0"."""
    return PyramidFilters(
        high=_isotropic(
            (0.00059972, -6.068e-05, -0.00033249, -0.00033256, -0.00024066),
            (0.00012631, 0.00049271, 0.00014597, -0.00037321),
            (-0.00161665, -0.01437358, -0.02420138),
            (-0.06300923, -0.09623594),
            (0.8554893,),
        ),
        low=_isotropic(
            (-0.0004514, -0.00011371, -0.00037258, -0.00374386),
            (-0.00611952, -0.0134416, -0.0075632),
            (0.06441488, 0.1524935),
            (0.3153017,),
        ),
        level_low=_isotropic(
            (-0.0002257, -0.00080644, -5.686e-05, 0.00087414, -0.00018628, -0.00103164, -0.00187192),
            (0.00141762, -0.00019038, -0.00244906, -0.00459642, -0.00700674, -0.0069489),
            (-0.00305976, -0.006401, -0.0067208, -0.00523618, -0.0037816),
            (-0.00526002, 0.00393862, 0.01722078, 0.024496),
            (0.03220744, 0.06306262, 0.07624674),
            (0.1116388, 0.1348999),
            (0.1576508,),
        ),
        bands=(
            _isotropic(
                (-9.066e-05, -0.00173864, -0.0049425, -0.00788939, -0.01009473),
                (-0.00462515, -0.00727254, -0.00762341, -0.00909195),
                (-0.0212954, -0.02435662, -0.03487008),
                (-0.01730466, -0.03158605),
                (0.9464195,),
            ),
        ),
    )


def _isotropic(*octant: tuple[float, ...]) -> np.ndarray:
    """octant[r] holds the taps of row r from the diagonal to the middle column."""
    quarter = np.zeros((len(octant), len(octant)))
    for row, taps in enumerate(octant):
        quarter[row, row:] = taps
        quarter[row:, row] = taps
    half = np.concatenate([quarter, quarter[:, -2::-1]], axis=1)
    return np.concatenate([half, half[-2::-1]])
