"""What is known of a source, a picture or a clip, and its frames."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from ldr2hdr_cli.media.colour import REC709


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its pixels are read.

    width, height: as displayed, orientation applied. pixel_aspect: width of a pixel over its height. timecode: of the
    first frame, "01:00:00:00", or "01:00:00;02" where frames are dropped. notes: what had to be assumed, as sentences.
    panorama: equirectangular, of the whole sphere; None where the file does not say.
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
    panorama: bool | None = None


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
