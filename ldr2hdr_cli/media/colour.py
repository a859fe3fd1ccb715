"""Primaries, and the names under which the Colour Interop Forum knows them."""

import numpy as np

from model.rendering import Matrix

Chromaticities = tuple[float, ...]

# CIE 1931 xy of red, green, blue and white.
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # ITU-R BT.709-6, table 1
P3D65 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)  # SMPTE EG 432-1
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.3290)  # Adobe RGB (1998), 4.2
REC601_525 = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290)  # SMPTE 170M
REC601_625 = (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # ITU-R BT.470-6, system B/G
REC2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)  # ITU-R BT.2020-2, table 3

# "lin_<primaries>_scene": scene-linear.
COLOR_INTEROP = {"lin_rec709_scene": REC709, "lin_p3d65_scene": P3D65, "lin_adobergb_scene": ADOBE_RGB}

_XY_TOLERANCE = 0.001  # ICC profiles round their primaries in the fourth decimal
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def color_interop_id(chromaticities: tuple[float, ...]) -> str | None:
    """The Colour Interop Forum's name for these linear primaries (xy of r, g, b, white), if any."""
    for name, known in COLOR_INTEROP.items():
        if np.allclose(chromaticities, known, rtol=0, atol=_XY_TOLERANCE):
            return name
    return None


def conversion(source: Chromaticities, target: Chromaticities) -> Matrix | None:
    """From linear RGB of one set of primaries to another, white to white; None where they are the same.

    Bradford adapts one white to the other, as in the ACES and OpenColorIO transforms.
    """
    if source == target:
        return None
    matrix = np.linalg.inv(to_xyz(target)) @ adaptation(white(source), white(target)) @ to_xyz(source)
    red, green, blue = (tuple(float(value) for value in row) for row in matrix)
    return red, green, blue  # type: ignore[return-value]


def to_xyz(chromaticities: Chromaticities) -> np.ndarray:
    """Linear RGB to CIE XYZ, 3×3, with Y = 1 for white (SMPTE RP 177)."""
    columns = np.column_stack([_xyz(*chromaticities[at : at + 2]) for at in (0, 2, 4)])
    return columns * np.linalg.solve(columns, white(chromaticities))


def white(chromaticities: Chromaticities) -> np.ndarray:
    """XYZ of white, Y = 1."""
    return _xyz(*chromaticities[6:8])


def adaptation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """XYZ under one white to XYZ under another, 3×3: linear Bradford (ICC.1:2022, annex E)."""
    scale = (_BRADFORD @ target) / (_BRADFORD @ source)
    return np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD)


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])
