"""Primaries and transfers: by the numbers and names that files give them, and from one set of primaries to another."""

import numpy as np

from model.exposure import Encoding
from model.rendering import Matrix

Chromaticities = tuple[float, ...]
"""CIE 1931 xy of red, green, blue and white."""

_D65 = (0.3127, 0.3290)
_ACES_WHITE = (0.32168, 0.33767)  # SMPTE ST 2065-1, 4.1.2; about D60
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)  # ITU-R BT.709-6, table 1
P3D65 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65)  # SMPTE EG 432-1
P3DCI = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351)  # SMPTE RP 431-2
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *_D65)  # Adobe RGB (1998), 4.2
PROPHOTO = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585)  # ROMM RGB, ISO 22028-2
REC601_525 = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65)  # SMPTE 170M
REC601_625 = (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65)  # ITU-R BT.470-6, system B/G
REC2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65)  # ITU-R BT.2020-2, table 3
AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.0770, *_ACES_WHITE)  # SMPTE ST 2065-1, table 1
AP1 = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, *_ACES_WHITE)  # S-2014-004, ACEScg

PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    1: ("bt709", REC709),
    4: ("bt470m", (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316)),
    5: ("bt470bg", REC601_625),
    6: ("smpte170m", REC601_525),
    7: ("smpte240m", REC601_525),
    8: ("film", (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316)),
    9: ("bt2020", REC2020),
    11: ("p3dci", P3DCI),
    12: ("p3d65", P3D65),
    22: ("ebu3213", (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65)),
}
"""By the numbers of ITU-T H.273, table 2."""

SRGB_CURVE, CAMERA_CURVE = Encoding("srgb"), Encoding("bt709")
TRANSFERS: dict[int, tuple[str, Encoding]] = {
    1: ("bt709", CAMERA_CURVE),
    4: ("gamma22", Encoding("gamma", 2.2)),
    5: ("gamma28", Encoding("gamma", 2.8)),
    6: ("smpte170m", CAMERA_CURVE),
    7: ("smpte240m", Encoding("smpte240m")),
    8: ("linear", Encoding("linear")),
    11: ("xvycc", CAMERA_CURVE),  # alike within [0, 1]
    12: ("bt1361", CAMERA_CURVE),
    13: ("srgb", SRGB_CURVE),
    14: ("bt2020-10", CAMERA_CURVE),
    15: ("bt2020-12", CAMERA_CURVE),
    16: ("pq", Encoding("pq")),
    17: ("gamma26", Encoding("gamma", 2.6)),  # SMPTE ST 428-1
    18: ("hlg", Encoding("hlg")),
}
"""By the numbers of ITU-T H.273, table 3, whose BT.709 is the camera's curve: see docs/colour.md."""

# "lin_<primaries>_scene": scene-linear, as the Colour Interop Forum names it.
COLOR_INTEROP = {
    "lin_rec709_scene": REC709,
    "lin_p3d65_scene": P3D65,
    "lin_rec2020_scene": REC2020,
    "lin_adobergb_scene": ADOBE_RGB,
    "lin_ap1_scene": AP1,
    "lin_ap0_scene": AP0,
}
COLORSPACES = {"rec709": REC709, "rec2020": REC2020, "acescg": AP1, "aces2065-1": AP0, "p3-d65": P3D65}
"""What `--colorspace` converts to."""

_XY_TOLERANCE = 0.001  # ICC profiles round their primaries in the fourth decimal
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def color_interop_id(chromaticities: Chromaticities) -> str | None:
    """The Colour Interop Forum's name for these linear primaries, if any."""
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


def are_primaries(chromaticities: Chromaticities) -> bool:
    """Whether light can be converted from and to these: a damaged file may hold anything."""
    values = np.array(chromaticities, float)
    if not np.isfinite(values).all() or np.abs(values).max() > 2 or np.abs(values[1::2]).min() < 1e-6:
        return False
    try:
        matrix = to_xyz(chromaticities)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(matrix).all() and np.linalg.cond(matrix) < 1e4)


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
