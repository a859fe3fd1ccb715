"""Classical expansion operators: predictable, without a network, and the baselines of `ldr2hdr evaluate`.

All of them work on luminance and multiply R, G and B by the same ratio, so chromaticity stays. All of them
are scaled alike: `peak` is the luminance given to LDR white where an operator expands fully, and LDR white is
1.0 where it leaves the picture alone. Their papers aim at a display in cd/m²; here the display's white is
1.0 and its peak is `peak`. Formulas are the papers'; where a paper leaves a figure open, it is the one of
F. Banterle's HDR Toolbox; each docstring says where we deviate. Lengths in pixels are for pictures of 1080
lines and follow the shorter side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from model.constants import LUMINANCE
from model.errors import Ldr2hdrError

_LUMINANCE = np.array(LUMINANCE, np.float32)
PEAK = 8.0  # of LDR white: three stops, a middle course between lamps and snow
THRESHOLD = 0.96  # display-encoded value from which a channel counts as saturated, as for the network
REFERENCE_SIDE = 1080.0  # pixels, for which the papers give their filter sizes


@dataclass(frozen=True)
class OperatorInput:
    """What an operator works on. All float32, H×W unless noted."""

    encoded: np.ndarray  # display-encoded RGB in [0, 1], H×W×3
    linear: np.ndarray  # the same picture linear, LDR white = 1, H×W×3
    luminance: np.ndarray  # of `linear`
    peak: float  # see `expand`
    threshold: float  # see `expand`

    @property
    def saturated(self) -> np.ndarray:
        """1.0 where any channel is saturated, else 0.0."""
        return (self.encoded.max(axis=-1) >= self.threshold).astype(np.float32)

    @property
    def scale(self) -> float:
        """The picture's size relative to the one that the papers' pixel counts were chosen for."""
        return min(self.luminance.shape) / REFERENCE_SIDE


Operator = Callable[[OperatorInput], np.ndarray]


def expand(
    ldr: np.ndarray,
    method: str,
    *,
    gamma: float = 2.0,
    peak: float = PEAK,
    threshold: float = THRESHOLD,
    linear: np.ndarray | None = None,
) -> np.ndarray:
    """Expand a display-encoded picture to linear HDR with one of `METHODS`.

    ldr: H×W×3 in [0, 1], any H, W ≥ 1; values outside are clamped. gamma: linear = ldr^gamma. linear: the
    picture already linearised by another transfer curve, H×W×3; `gamma` is then not used. peak ≥ 1: the
    luminance of fully expanded LDR white. threshold: display-encoded value from which a channel counts as
    saturated ("rempel2007" and "kovaleski2014").
    Returns float32 H×W×3, linear, finite, ≥ 0. Raises Ldr2hdrError for an unknown method, a peak under 1 or a
    picture of another shape.
    """
    if method not in METHODS:
        raise Ldr2hdrError(f"There is no expansion method {method!r}: choose one of {', '.join(METHODS)}.")
    if not peak >= 1:
        raise Ldr2hdrError(f"An expansion to a peak of {peak:g} would darken the picture: give a peak of 1 or more.")
    if ldr.ndim != 3 or ldr.shape[-1] != 3 or ldr.size == 0:
        raise Ldr2hdrError(f"Expansion needs a picture of height × width × 3, not {ldr.shape}.")
    encoded = np.clip(ldr, 0.0, 1.0).astype(np.float32)
    if linear is None:
        linear = encoded ** np.float32(gamma)
    linear = np.maximum(linear, 0.0).astype(np.float32)
    return METHODS[method](OperatorInput(encoded, linear, linear @ _LUMINANCE, float(peak), threshold))


def clip(given: OperatorInput) -> np.ndarray:
    """No expansion: the linearised picture, white at 1.0. What every other method has to beat."""
    return given.linear


def landis2002(given: OperatorInput) -> np.ndarray:
    """Landis 2002, "Production-Ready Global Illumination" (SIGGRAPH course 16): expand above a threshold.

    L′ = (1 − k)·L + k·peak·L with k = ((L − R)/(1 − R))^α for L ≥ R, else L. R = 0.5 and α = 2 on linear
    luminance. The formula is the one under which surveys hand it on (Banterle et al. 2009, "High Dynamic Range
    Imaging and Low Dynamic Range Expansion for Generating HDR Content", CGF 28(8)). Global, monotone.
    """
    start, alpha = 0.5, 2.0
    k = np.clip((given.luminance - start) / (1.0 - start), 0.0, 1.0) ** alpha
    return given.linear * (1.0 + k * (given.peak - 1.0))[..., None]


def akyuz2007(given: OperatorInput) -> np.ndarray:
    """Akyüz et al. 2007, "Do HDR displays support LDR content? A psychophysical evaluation" (ACM TOG 26(3)).

    L′ = peak·((L − Lmin)/(Lmax − Lmin))^γ with γ = 1, which their observers preferred: a plain stretch of the
    picture to the display's range. It scales the well-exposed part by the same factor as white, so after
    alignment of scale it is `clip` with the blacks stretched. A picture of one luminance has no range; it is
    multiplied by `peak`. Lmin and Lmax belong to one picture: in video they change from frame to frame.
    """
    low, high = float(given.luminance.min()), float(given.luminance.max())
    if high - low < 1e-6:
        return given.linear * np.float32(given.peak)
    stretched = given.peak * (given.luminance - low) / (high - low)
    return _with_luminance(given, stretched)


def banterle2006(given: OperatorInput) -> np.ndarray:
    """Banterle et al. 2006, "Inverse tone mapping" (GRAPHITE): inverse operator, blended by an expand map.

    The inverse of Reinhard's photographic operator with white point Lwhite, eq. in section 4:
    Lw = ½·peak·Lwhite·(L − 1 + √((1 − L)² + 4L/Lwhite²)). Here Lwhite = peak, the choice that leaves darks at
    their value. Then L′ = (1 − Λ)·L + Λ·Lw, where Λ is the density of light sources found by median cut
    (Debevec 2005), 1024 of them, spread by a Gaussian and scaled to a maximum of 1.
    Deviations: Gaussian kernel throughout; isolated light sources are not removed; no noise filter. Λ is
    relative to the picture, so a picture without any light is expanded where it is brightest.
    """
    white, lum = given.peak, given.luminance
    root = np.sqrt((1.0 - lum) ** 2 + 4.0 * lum / white**2)
    expanded = 0.5 * given.peak * white * np.maximum(lum - 1.0 + root, 0.0)
    density = _light_density(lum)
    # Rounding may leave the inverse a hair under the identity in the darks.
    return _with_luminance(given, lum + density * np.maximum(expanded - lum, 0.0))


def rempel2007(given: OperatorInput) -> np.ndarray:
    """Rempel et al. 2007, "LDR2HDR: On-the-fly Reverse Tone Mapping of Legacy Video and Photographs" (TOG 26(3)).

    A brightness enhancement function B in [0, 1] multiplies the linear picture by 1 + (peak − 1)·B (the paper
    goes to a factor of 4). B is the saturated mask blurred by a Gaussian of σ = 30 pixels, times an
    edge-stopping mask: the region flooded from saturated pixels without crossing a gradient of 0.05 in
    luminance (5×5 Sobel), its border softened by a Gaussian of σ = 1.
    Deviations: one threshold for saturation instead of 230/255 for video; no noise filter before it; the
    whole blur instead of its pyramid approximation.
    """
    saturated = given.saturated
    smooth = _blur(saturated, 30.0 * given.scale)
    gradient = np.hypot(*(_sobel5(given.luminance, axis) for axis in (0, 1)))
    passable = ((gradient < 0.05) & (smooth > 0.001)) | (saturated > 0)
    _, labels = cv2.connectedComponents(passable.astype(np.uint8), connectivity=4)
    reached = np.zeros(labels.max() + 1, dtype=np.float32)
    reached[labels[saturated > 0]] = 1.0
    flooded = np.maximum(_blur(reached[labels], 1.0), 0.0)
    return given.linear * (1.0 + (given.peak - 1.0) * smooth * flooded)[..., None]


def kovaleski2014(given: OperatorInput) -> np.ndarray:
    """Kovaleski and Oliveira 2014, "High-Quality Reverse Tone Mapping for a Wide Range of Exposures" (SIBGRAPI).

    As Rempel et al., but B is one cross-bilateral filter of the saturated mask, guided by the picture: blur
    that stops at edges by itself. σ = 150 pixels and 25/255 in display-encoded luminance, evaluated on a
    bilateral grid (Paris and Durand 2006) with a cell of one σ.
    Deviations: one threshold for saturation instead of 254/255 for photographs and 230/255 for video; only the
    brightness enhancement function is built, without the paper's further treatment by exposure.
    """
    guide = given.encoded @ _LUMINANCE
    cell = max(150.0 * given.scale, 1.0)
    enhancement = _cross_bilateral(given.saturated, guide, cell, sigma_range=25.0 / 255.0)
    return given.linear * (1.0 + (given.peak - 1.0) * enhancement)[..., None]


METHODS: dict[str, Operator] = {
    "clip": clip,
    "landis2002": landis2002,
    "akyuz2007": akyuz2007,
    "banterle2006": banterle2006,
    "rempel2007": rempel2007,
    "kovaleski2014": kovaleski2014,
}


def _with_luminance(given: OperatorInput, luminance: np.ndarray) -> np.ndarray:
    """The picture with its luminance replaced and its chromaticities kept; black stays black."""
    ratio = luminance / np.maximum(given.luminance, 1e-12)
    return (given.linear * ratio[..., None]).astype(np.float32)


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REPLICATE)


def _sobel5(picture: np.ndarray, axis: int) -> np.ndarray:
    """5×5 Sobel derivative, divided by the sum of its absolute weights (96)."""
    dx, dy = (0, 1) if axis == 0 else (1, 0)
    return cv2.Sobel(picture, cv2.CV_32F, dx, dy, ksize=5, borderType=cv2.BORDER_REPLICATE) / 96.0


def _light_density(luminance: np.ndarray, splits: int = 10) -> np.ndarray:
    """Density of 2^splits median-cut light sources, H×W in [0, 1], 1 where it is greatest."""
    height, width = luminance.shape
    lights = np.zeros((height, width), dtype=np.float32)
    for row, column, power in _median_cut(luminance, splits):
        lights[row, column] += power
    # Half the mean distance of evenly spread lights, times eight, is the reach of one; a fifth of it is σ.
    reach = 8.0 * max(height, width) / (2.0 * 2.0 ** (splits / 2))
    density = _blur(lights, reach / 5.0)
    greatest = float(density.max())
    return density / greatest if greatest > 0 else density


def _median_cut(luminance: np.ndarray, splits: int) -> list[tuple[int, int, float]]:
    """Light sources of equal power as (row, column, power): Debevec 2005, "A median cut algorithm for light
    probe sampling" (SIGGRAPH posters). Each region is cut across its longer side where its sum halves.
    """
    table = np.pad(luminance.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    regions = [(0, luminance.shape[0], 0, luminance.shape[1])]
    for _ in range(splits):
        regions = [half for region in regions for half in _halves(table, region)]
    lights = []
    for top, bottom, left, right in regions:
        across = table[top : bottom + 1, right] - table[top : bottom + 1, left]
        down = table[bottom, left : right + 1] - table[top, left : right + 1]
        power = float(across[-1] - across[0])
        if power > 0:
            lights.append((top + _middle(across), left + _middle(down), power))
    return lights


def _halves(table: np.ndarray, region: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    top, bottom, left, right = region
    if bottom - top >= right - left:
        if bottom - top < 2:
            return [region]
        cut = top + _cut(table[top : bottom + 1, right] - table[top : bottom + 1, left])
        return [(top, cut, left, right), (cut, bottom, left, right)]
    cut = left + _cut(table[bottom, left : right + 1] - table[top, left : right + 1])
    return [(top, bottom, left, cut), (top, bottom, cut, right)]


def _middle(cumulative: np.ndarray) -> int:
    """Index of the cell in which a cumulative sum (one entry more than cells) passes its half."""
    half = 0.5 * (cumulative[0] + cumulative[-1])
    return int(np.clip(np.searchsorted(cumulative, half) - 1, 0, cumulative.size - 2))


def _cut(cumulative: np.ndarray) -> int:
    """Where to cut so that both sides hold about half; at least one cell on either side."""
    half = 0.5 * (cumulative[0] + cumulative[-1])
    return int(np.clip(np.argmin(np.abs(cumulative - half)), 1, cumulative.size - 2))


def _cross_bilateral(values: np.ndarray, guide: np.ndarray, cell: float, sigma_range: float) -> np.ndarray:
    """`values` (H×W) smoothed among pixels that are near and whose `guide` is alike: a bilateral grid.

    cell: spatial σ in pixels, sigma_range: σ of the guide; the grid has one cell per σ either way, is filled
    by nearest neighbour, blurred by a Gaussian of one cell and read trilinearly.
    """
    height, width = guide.shape
    pad = 2
    rows, columns = np.arange(height) / cell + pad, np.arange(width) / cell + pad
    levels = (guide / sigma_range + pad).astype(np.float32)
    shape = tuple(int(v) + pad + 2 for v in (levels.max(), rows[-1], columns[-1]))
    at = np.ravel_multi_index(
        (np.rint(levels).astype(np.intp), np.rint(rows).astype(np.intp)[:, None], np.rint(columns).astype(np.intp)),
        shape,
    ).ravel()
    size = int(np.prod(shape))
    weight = np.bincount(at, minlength=size).reshape(shape).astype(np.float32)
    total = np.bincount(at, weights=values.ravel(), minlength=size).reshape(shape).astype(np.float32)
    weight, total = _blur_grid(weight), _blur_grid(total)
    map_x, map_y = (m.astype(np.float32) for m in np.meshgrid(columns, rows))
    numerator, denominator = np.zeros((2, height, width), dtype=np.float32)
    for level in range(shape[0]):
        tent = np.maximum(1.0 - np.abs(levels - level), 0.0)
        if tent.any():
            numerator += tent * cv2.remap(total[level], map_x, map_y, cv2.INTER_LINEAR)
            denominator += tent * cv2.remap(weight[level], map_x, map_y, cv2.INTER_LINEAR)
    return np.clip(numerator / np.maximum(denominator, 1e-12), 0.0, 1.0)


def _blur_grid(grid: np.ndarray) -> np.ndarray:
    """Gaussian of σ = 1 cell along the three axes of a grid whose outermost two cells are empty."""
    kernel = np.exp(-0.5 * np.arange(-2, 3) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for axis in range(3):
        padded = np.pad(grid, [(2, 2) if a == axis else (0, 0) for a in range(3)])
        length = grid.shape[axis]
        grid = sum(w * np.take(padded, range(i, i + length), axis=axis) for i, w in enumerate(kernel))
    return grid
