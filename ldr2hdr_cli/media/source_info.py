"""What is known of a source, a picture or a clip, and its frames."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ldr2hdr_cli.media.colour import REC709, SRGB_CURVE
from model.errors import Ldr2hdrError
from model.exposure import Encoding

if TYPE_CHECKING:
    from model.codes import Codes

HDR_NOTES = {
    "pq": "its PQ is light of the display: 203 cd/m² become 1.0 (ITU-R BT.2408).",
    "hlg": "its HLG is light of the scene, without the OOTF of a display: 75 % become 1.0 (ITU-R BT.2408).",
}


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before its pixels are read.

    width, height: as displayed, orientation applied. pixel_aspect: width of a pixel over its height. timecode: of the
    first frame, "01:00:00:00", or "01:00:00;02" where frames are dropped. frame_count, seconds: as the container says.
    notes: what is unusual, as sentences.
    primaries, transfer: by their names. encoding: what `transfer` means, and `--transfer auto` takes. assumed: which of
    "primaries" and "transfer" the file does not name. metadata: camera, time, place, owner, see `media.metadata`.
    panorama: equirectangular, of the whole sphere; None where the file does not say.
    is_hdr: it holds all its light (PQ, HLG, or a gain map that is taken alone), and the network has no part in it.
    gain_max: the largest that Frame.gain can say, one value or three. mastering_display, max_cll, max_fall: of HDR, as
    text and in cd/m².
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
    seconds: float | None = None
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
    is_hdr: bool = False
    gain_max: tuple[float, ...] = ()
    mastering_display: str = ""
    max_cll: int | None = None
    max_fall: int | None = None


class Frame:
    """One picture.

    codes: as it was decoded, see `model.codes.Codes`; what goes up to the device. alpha: float32 H×W in [0, 1],
    straight, or None. index: position in the source, in the order of presentation, from 0. seconds: its time stamp.
    note: what changes with this frame, as `SourceInfo.notes`, or nothing. gain: float32 H×W×1 or H×W×3, by which the
    source itself is brighter than its codes say, as linear light; or None.
    """

    def __init__(
        self,
        pixels: np.ndarray | Codes,
        alpha: np.ndarray | None = None,
        index: int = 0,
        seconds: float | None = None,
        timecode: str | None = None,
        *,
        gain: np.ndarray | None = None,
        note: str = "",
    ) -> None:
        """pixels: display-encoded RGB in [0, 1], float32 H×W×3, or codes that mean such."""
        self._turn = threading.Lock()
        self._pixels: np.ndarray | None = None
        self.pixels = pixels  # type: ignore[assignment]
        self.alpha, self.index, self.seconds, self.timecode = alpha, index, seconds, timecode
        self.gain, self.note = gain, note

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


def mastering_display(points: Sequence[tuple[float, float]], low: float, high: float) -> str:
    """In words. points: xy of red, green, blue and white. low, high: luminance in cd/m²."""
    names = "RGBW"
    shown = ", ".join(f"{name} {x:.4g} {y:.4g}" for name, (x, y) in zip(names, points, strict=True))
    return f"{low:.4g} to {high:.4g} cd/m², {shown}"


def refuse_hdr(info: SourceInfo, from_hdr: bool = False) -> None:
    """Raises Ldr2hdrError for PQ and HLG, unless they are asked for."""
    if info.is_hdr and not from_hdr:
        name = {"pq": "PQ (SMPTE ST 2084)", "hlg": "HLG (ARIB STD-B67)"}[info.transfer]
        raise Ldr2hdrError(
            f"{info.path} is HDR already: its transfer is {name}, and nothing in it is clipped that could be "
            "reconstructed; --from-hdr makes it linear without the network."
        )
