"""What is known of a source, a picture or a clip, and its frames."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ldr2hdr_cli.media.colour import REC709, SRGB_CURVE
from model.exposure import Encoding

if TYPE_CHECKING:
    from model.codes import Codes


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its pixels are read.

    width, height: as displayed, orientation applied. pixel_aspect: width of a pixel over its height. timecode: of the
    first frame, "01:00:00:00", or "01:00:00;02" where frames are dropped. notes: what is unusual, as sentences.
    primaries, transfer: by their names. encoding: what `transfer` means, and `--transfer auto` takes. assumed: which of
    "primaries" and "transfer" the file does not name. metadata: camera, time, place, owner, see `media.metadata`.
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
    encoding: Encoding = SRGB_CURVE
    assumed: tuple[str, ...] = ()
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    panorama: bool | None = None


class Frame:
    """One picture.

    codes: as it was decoded, see `model.codes.Codes`; what goes up to the device. alpha: float32 H×W in [0, 1],
    straight, or None. index: position in the source, in the order of presentation, from 0. seconds: its time stamp.
    """

    def __init__(
        self,
        pixels: np.ndarray | Codes,
        alpha: np.ndarray | None = None,
        index: int = 0,
        seconds: float | None = None,
        timecode: str | None = None,
    ) -> None:
        """pixels: display-encoded RGB in [0, 1], float32 H×W×3, or codes that mean such."""
        self._turn = threading.Lock()
        self._pixels: np.ndarray | None = None
        self.pixels = pixels  # type: ignore[assignment]
        self.alpha, self.index, self.seconds, self.timecode = alpha, index, seconds, timecode

    @property
    def pixels(self) -> np.ndarray:
        """Display-encoded RGB in [0, 1], float32 H×W×3; worked out when it is first asked for."""
        with self._turn:
            if self._pixels is None:
                self._pixels = self.codes.pixels()
            return self._pixels

    @pixels.setter
    def pixels(self, pixels: np.ndarray | Codes) -> None:
        from model.codes import Codes

        self.codes = pixels if isinstance(pixels, Codes) else Codes(pixels)
        self._pixels = pixels if isinstance(pixels, np.ndarray) else None

    @property
    def size(self) -> int:
        """Pixels."""
        return math.prod(self.codes.shape)
