"""How scene-linear becomes light on a display: the one place that every format for looking at takes it from.

1.0, the white of the source, is diffuse white, and everything up to it keeps its proportions. Highlights above it are
led up to the display's peak by a shoulder that keeps their hue. PQ, HLG and gain maps only encode what comes out.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ldr2hdr_cli.media.colour import REC2020, Chromaticities, conversion
from model.errors import Ldr2hdrError
from model.exposure import HLG_WHITE, encode, linearise

DIFFUSE_WHITE = 203.0  # cd/m²; ITU-R BT.2408-7, table 1: graphics white, 58 % PQ and 75 % HLG
PEAK = 1000.0  # cd/m²; the display that BT.2408 and BT.2100's HLG take as their reference
PQ_PEAK = 10_000.0  # cd/m² of PQ's code 1.0; ITU-R BT.2100-2, table 4
LUMA_2020 = (0.2627, 0.6780, 0.0593)  # ITU-R BT.2100-2, table 6


@dataclass(frozen=True)
class DisplayLight:
    """How bright a result is shown.

    white: cd/m² of scene-linear 1.0. peak: cd/m² of the brightest display that is written for; no channel gets more.
    viewing: "bt1886" shows a source that was encoded by BT.709's camera curve as a BT.1886 display shows it, darker in
    its shadows than the scene was; "none" for sRGB and pure gammas, whose display undoes their curve. Both
    are ITU-R BT.2100-2's reference OOTF for PQ (table 4) or its absence. "hlg": BT.2020 light of a scene that HLG
    encoded, by its OOTF for a display of 1000 cd/m² (table 5), whose white stays white.

    Raises Ldr2hdrError for a peak that is not above white, or beyond PQ.
    """

    white: float = DIFFUSE_WHITE
    peak: float = PEAK
    viewing: Literal["none", "bt1886", "hlg"] = "none"

    def __post_init__(self) -> None:
        if not 0 < self.white < self.peak <= PQ_PEAK:
            raise Ldr2hdrError(
                f"--white {self.white:g} and --peak {self.peak:g} cd/m² leave no room for highlights: "
                f"choose a peak above white and up to {PQ_PEAK:g}."
            )

    @property
    def brightest(self) -> float:
        """cd/m² before the shoulder of what reaches the peak after it; more than that is the peak too.

        All that PQ can hold, or less where the shoulder would otherwise begin below diffuse white.
        """
        return _nits(min(1.0, 3 * _code(self.peak) - 2 * _code(self.white)))

    @property
    def knee(self) -> float:
        """cd/m² up to which light is passed on as it is; never below `white`."""
        return _nits(1.5 * _code(self.peak) - 0.5 * _code(self.brightest))

    def nits(self, linear: np.ndarray, matrix: np.ndarray | None = None) -> np.ndarray:
        """Scene-linear to display light: H×W×3 float32 in cd/m², from 0 to `peak`.

        linear: H×W×3, ≥ 0; 1.0 is the source's white. matrix: 3×3, rows first, from its primaries to the display's;
        None where they are the same. What lies outside the display's gamut is cut off at its border.
        """
        light: np.ndarray = np.ascontiguousarray(linear, dtype=np.float32)
        if self.viewing == "bt1886":
            light = _as_seen(light)
        elif self.viewing == "hlg":
            luminance = np.maximum(light @ np.array(LUMA_2020, np.float32), 0)
            light = light * np.power(luminance, np.float32(hlg_system_gamma(PEAK) - 1))[..., None]
        if matrix is not None:
            light = cv2.transform(light, np.asarray(matrix, np.float32))
        return self.shoulder(np.maximum(light, 0) * np.float32(self.white))

    def shoulder(self, nits: np.ndarray) -> np.ndarray:
        """Highlights brought below `peak`, in all three channels by one factor, so that hue and saturation stay.

        nits: H×W×3 float32, ≥ 0. The curve is the EETF of ITU-R BT.2390-10, 5.4.1.1, for the range 0 to `brightest`,
        applied to max(R, G, B).
        """
        strongest = strongest_channel(nits)
        is_bent = strongest > self.knee  # few pixels; all others are passed on bit for bit
        if not is_bent.any():
            return nits
        result = nits.copy()
        before = strongest[is_bent]
        # The quotient alone could round to just above the peak.
        scaled = nits[is_bent] * (self._eetf(before) / before)[:, None]
        result[is_bent] = np.minimum(scaled, np.float32(self.peak))
        return result

    def _eetf(self, nits: np.ndarray) -> np.ndarray:
        whole = _code(self.brightest)
        most = _code(self.peak) / whole
        start = 1.5 * most - 0.5
        if start >= 1:  # a display with all of PQ
            return np.minimum(nits, self.peak)
        # BT.2390's Hermite spline, of slope 1 where it starts and 0 where it ends.
        t = (np.minimum(pq(nits) / whole, 1) - start) / (1 - start)
        bent = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (3 * t**2 - 2 * t**3) * most
        return np.minimum(pq_inverse(bent * whole), self.peak)


def strongest_channel(rgb: np.ndarray) -> np.ndarray:
    """max(R, G, B) of every pixel; some ten times faster than NumPy's maximum over so short an axis."""
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _as_seen(linear: np.ndarray) -> np.ndarray:
    """BT.709's camera curve followed by BT.1886's display, 1.0 → 1.0, going on above (BT.2100-2, table 4, OOTF)."""
    return linearise(encode(linear, "bt709"), "bt1886")


def pq(nits: np.ndarray) -> np.ndarray:
    """The inverse EOTF of SMPTE ST 2084: cd/m² in [0, 10 000] to a signal in [0, 1]; any shape, float."""
    return encode(nits / DIFFUSE_WHITE, "pq")


def pq_inverse(signal: np.ndarray) -> np.ndarray:
    """The EOTF of SMPTE ST 2084: a signal in [0, 1] to cd/m²."""
    return linearise(signal, "pq") * DIFFUSE_WHITE


def _code(nits: float) -> float:
    return float(pq(np.array(nits, np.float64)))


def _nits(code: float) -> float:
    return float(pq_inverse(np.array(code, np.float64)))


def hlg(nits: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """Display light to an HLG signal in [0, 1]: the inverse OOTF and the OETF of ITU-R BT.2100-2, table 5.

    nits: H×W×3 float, BT.2020, in [0, peak]. peak: of the display that it is meant for; it settles the system
    gamma. HLG cannot hold saturated light at the peak: such a pixel is darkened in all channels alike, not clipped.
    """
    gamma = hlg_system_gamma(peak)
    light = nits / nits.dtype.type(peak)
    luminance = light @ np.array(LUMA_2020, light.dtype)
    # 0/0 at black: the channels are 0 there too.
    scene = light * np.power(np.maximum(luminance, 1e-12), (1 - gamma) / gamma, dtype=light.dtype)[..., None]
    scene = scene / np.maximum(strongest_channel(scene), 1)[..., None]
    return np.minimum(encode(scene / HLG_WHITE, "hlg"), 1)


def hlg_inverse(signal: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """An HLG signal to display light: the inverse OETF and the OOTF of ITU-R BT.2100-2, table 5. Black is 0."""
    scene = linearise(signal, "hlg") * HLG_WHITE
    luminance = scene @ np.array(LUMA_2020, scene.dtype)
    return peak * scene * np.power(luminance, hlg_system_gamma(peak) - 1, dtype=scene.dtype)[..., None]


def hlg_system_gamma(peak: float) -> float:
    """By ITU-R BT.2100-2, note 5f; from 400 to 2000 cd/m² its formula, beyond that the one that extends it."""
    if 400 <= peak <= 2000:
        return float(1.2 + 0.42 * np.log10(peak / 1000))
    return float(1.2 * 1.111 ** np.log2(peak / 1000))


def to_rec2020(chromaticities: Chromaticities) -> np.ndarray:
    """The 3×3 matrix, rows first, from linear RGB with these primaries and white to linear BT.2020."""
    matrix = conversion(chromaticities, REC2020)
    return np.eye(3) if matrix is None else np.array(matrix)
