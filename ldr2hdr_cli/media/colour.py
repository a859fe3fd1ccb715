"""Primaries, and the names under which the Colour Interop Forum knows them."""

import numpy as np

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


def color_interop_id(chromaticities: tuple[float, ...]) -> str | None:
    """The Colour Interop Forum's name for these linear primaries (xy of r, g, b, white), if any."""
    for name, known in COLOR_INTEROP.items():
        if np.allclose(chromaticities, known, rtol=0, atol=_XY_TOLERANCE):
            return name
    return None
