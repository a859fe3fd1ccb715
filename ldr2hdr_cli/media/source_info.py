"""What comes in: a plate, which is a picture or a clip, and its frames."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

# CIE 1931 xy of red, green, blue and white.
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # ITU-R BT.709-6, table 1
P3D65 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)  # SMPTE EG 432-1
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.3290)  # Adobe RGB (1998), 4.2
REC601_525 = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290)  # SMPTE 170M
REC601_625 = (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # ITU-R BT.470-6, system B/G
REC2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)  # ITU-R BT.2020-2, table 3


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its pixels are read.

    width, height: as displayed, orientation applied. pixel_aspect: width of a pixel over its height. timecode: of the
    first frame, "01:00:00:00", or "01:00:00;02" where frames are dropped. notes: what had to be assumed, as sentences.
    """

    path: Path
    kind: Literal["still", "video"]
    width: int
    height: int
    bit_depth: int
    chromaticities: tuple[float, ...] = REC709
    primaries: str = "bt709"
    pixel_aspect: float = 1.0
    frame_rate: Fraction | None = None
    frame_count: int | None = None
    timecode: str | None = None
    has_alpha: bool = False
    interlaced: bool = False
    notes: tuple[str, ...] = ()
    codec: str = ""
    matrix: str = ""
    full_range: bool | None = None
    transfer: str = ""


@dataclass
class Frame:
    """One picture.

    pixels: float32 H×W×3, display-encoded RGB in [0, 1]. alpha: float32 H×W in [0, 1], straight, or None.
    index: position in the source, in the order of presentation, from 0. seconds: its time stamp.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    index: int = 0
    seconds: float | None = None
    timecode: str | None = None
