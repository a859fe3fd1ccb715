"""How far a reconstruction is from the truth.

Every function takes linear Rec.709 pictures, H×W×3, in which LDR white (the clip level) is 1.0, already
aligned (`alignment.py`). `region` is a bool array, H×W or H×W×3; None means the whole picture. An error over
an empty region is NaN, never 0. Infinite values, which half-float pictures have where the sun overflowed,
count as the largest half; a NaN in a prediction makes its scores NaN, so that it is seen.
"""

import logging
from functools import lru_cache
from math import inf, isnan, nan
from typing import Any

import numpy as np

from model.constants import LUMINANCE
from model.errors import Ldr2hdrError

PEAK = 4000.0  # cd/m², of the display that the perceptual metrics imagine
WHITE = 100.0  # cd/m², the luminance that LDR white is shown at
SMALLEST = 16  # pixels a side: pyramids fail on less, so smaller pictures are continued at the edge
PIXELS_PER_DEGREE = 60.0  # a 1080p screen seen from about three picture heights
BINS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, inf))  # stops of the truth above the clip level

LARGEST_HALF = 65504.0

RGB_TO_XYZ = np.array(  # BT.709 primaries and D65, IEC 61966-2-1
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)

# Mantiuk and Azimi 2021, the "banding + glare" fit that the authors recommend (github.com/gfxdisp/pu21)
PU21 = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142)
PU21_RANGE = (0.005, 10000.0)  # cd/m², for which the fit was made
PU21_WHITE = 256.0  # what 100 cd/m² encodes to, and the authors' peak value for PSNR and SSIM


def mse_gamma(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None, gamma: float = 2.0) -> float:
    """Mean squared error of gamma-corrected pictures, (P^(1/γ) − H^(1/γ))², averaged over values.

    Source: Santos et al. 2020, section 5, table 1. The paper does not say how its pictures are normalised;
    here LDR white is 1 and nothing is clamped, so the figure is in squared LDR code values (1 = white) and
    grows with highlights. γ is that of the paper's eq. 1. Negative values count as 0.
    """
    p, t = (np.maximum(v, 0.0) ** (1.0 / gamma) for v in _values(prediction, truth, region))
    return _mean((p - t) ** 2)


def rmse_stops(
    prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None, floor: float = 1e-4
) -> float:
    """Root mean square of log2(P / H), in stops. Values under `floor` (13 stops under white) count as it.

    The usual error of log pictures (Eilertsen et al. 2017, "HDR image reconstruction from a single exposure
    using deep CNNs", reports the mean square of natural logarithms), given in stops.
    """
    return float(np.sqrt(_mean(_stops(*_values(prediction, truth, region), floor) ** 2)))


def bias_stops(
    prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None, floor: float = 1e-4
) -> float:
    """Signed median of log2(P / H), in stops: above 0 the prediction is too bright."""
    difference = _stops(*_values(prediction, truth, region), floor)
    return float(np.median(difference)) if difference.size else nan


def log_l1(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean of |log(1 + P) − log(1 + H)|, in natural logarithms.

    The network's output is log(1 + H), so this is what its reconstruction loss measures: eq. 6 of Santos et
    al. 2020, which weights each value by 1 − M where we take a region, and carries a factor. Negative values
    count as 0.
    """
    p, t = (np.log1p(np.maximum(v, 0.0)) for v in _values(prediction, truth, region))
    return _mean(np.abs(p - t))


def pu21_encode(luminance_cd_m2: np.ndarray) -> np.ndarray:
    """Absolute luminance in cd/m² → perceptually uniform units, 0 to 595; 100 cd/m² is 256.

    V = p7·(((p1 + p2·Y^p4) / (1 + p3·Y^p4))^p5 − p6), Y clamped to 0.005…10 000 cd/m². Source: Mantiuk and
    Azimi 2021, "PU21: A novel perceptually uniform encoding for adapting existing quality metrics for HDR",
    Picture Coding Symposium, eq. for V(Y), coefficients "banding + glare". Any shape; float64.
    """
    a, b, c, d, e, f, g = PU21
    power = np.clip(np.asarray(luminance_cd_m2, dtype=np.float64), *PU21_RANGE) ** d
    return g * (((a + b * power) / (1.0 + c * power)) ** e - f)


def pu21_psnr(
    prediction: np.ndarray,
    truth: np.ndarray,
    region: np.ndarray | None = None,
    peak: float = PEAK,
    white: float = WHITE,
) -> float:
    """PSNR of PU21-encoded R, G and B, in dB against 256; inf for equal pictures.

    LDR white is shown at `white` cd/m², and everything is clamped to a display's `peak`. Source: Mantiuk and
    Azimi 2021; encoding each channel and the peak value 256 follow their own implementation's "PSNR".
    """
    p, t = (pu21_encode(_shown(v, peak, white)) for v in _values(prediction, truth, region))
    error = _mean((p - t) ** 2)
    if isnan(error):
        return nan
    return inf if error == 0 else float(10 * np.log10(PU21_WHITE**2 / error))


def pu21_ssim(
    prediction: np.ndarray,
    truth: np.ndarray,
    region: np.ndarray | None = None,
    peak: float = PEAK,
    white: float = WHITE,
) -> float:
    """SSIM of PU21-encoded luminance, −1 to 1; the map is averaged over `region` (H×W, or any channel of H×W×3).

    Wang et al. 2004 ("Image quality assessment: from error visibility to structural similarity"): Gaussian
    window 11×11, σ = 1.5, K1 = 0.01, K2 = 0.03; edges replicated. Dynamic range 256 and luminance only, as in
    the implementation of Mantiuk and Azimi 2021. Not scikit-image's: the same inside, but it reflects the edges,
    leaves them out of the mean, and takes no picture under 11 pixels, so that published scores would change.
    """
    similarity = _pu21_ssim_map(prediction, truth, peak, white)
    return _mean(similarity if region is None else similarity[_per_pixel(region)])


def pu21_vsi(prediction: np.ndarray, truth: np.ndarray, peak: float = PEAK, white: float = WHITE) -> float:
    """VSI of PU21-encoded R, G and B: 1 for equal pictures, less for others.

    Hanji et al. 2022 ("Comparison of single image HDR reconstruction methods — the caveats of quality assessment")
    recommend it, with PSNR and HDR-VDP-3, over SSIM. As in the authors' own implementation, VSI is given the PU21
    units as they are, 256 for 100 cd/m², where other packages scale to 255. A whole-picture metric; NaN where a
    picture has one.
    """
    from ldr2hdr_cli.evaluation.vsi import vsi

    mine, wanted = (pu21_encode(_shown(_finite(p), peak, white)) for p in (prediction, truth))
    return vsi(mine, wanted)


def pu21_piqe(picture: np.ndarray, peak: float = PEAK, white: float = WHITE) -> float:
    """PIQE of PU21-encoded R, G and B, in which `peak` is 1: needs no truth; 0 is the best, 100 the worst.

    Hanji et al. 2022 found that it agrees with people without any alignment. A whole-picture metric; NaN where the
    picture has one.
    """
    from ldr2hdr_cli.evaluation.piqe import piqe

    return piqe(pu21_encode(_shown(_finite(picture), peak, white)) / pu21_encode(np.array(peak)))


def cvvdp_jod(
    prediction: np.ndarray, truth: np.ndarray, peak: float = PEAK, white: float = WHITE, device: str = "cpu"
) -> float:
    """ColorVideoVDP quality in JOD: 10 is indistinguishable, one less is a just-objectionable difference.

    Source: Mantiuk et al. 2024, "ColorVideoVDP: A visual difference predictor for image, video and display
    distortions" (ACM TOG 43(4)), the authors' package `cvvdp`. The display is ours: linear Rec.709 input, LDR
    white at `white` cd/m², clamped to `peak`, black at 0.005 cd/m², a dark room, 60 pixels per degree. A
    whole-picture metric: it has no region. Needs no network. Raises Ldr2hdrError without the package.
    """
    import torch

    metric = _cvvdp(float(peak), device)
    if np.isnan(prediction).any() or np.isnan(truth).any():
        return nan
    pictures = [torch.from_numpy(_on_screen(p, peak, white).astype(np.float32)) for p in (prediction, truth)]
    with torch.inference_mode():
        jod, _ = metric.predict(*pictures, dim_order="HWC")
    return float(jod)


def hdrvdp(
    prediction: np.ndarray,
    truth: np.ndarray,
    peak: float = PEAK,
    white: float = WHITE,
    pixels_per_degree: float | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """HDR-VDP-3.0.7's `hdrvdp3_q` (10 is the best) and `hdrvdp3_jod`, and HDR-VDP-2.2's `hdrvdp2_q` (100 is).

    Sources: `ldr2hdr_cli.evaluation.hdrvdp`, which agrees with the authors' own code. LDR white is shown at `white`
    cd/m², clamped to `peak`; pixels_per_degree: None for a 24-inch 1080p screen seen from a metre. A whole-picture
    metric. NaN where a picture has one.
    """
    display = peak, white, pixels_per_degree, device
    return hdrvdp3_quality(prediction, truth, *display) | hdrvdp2_quality(prediction, truth, *display)


def hdrvdp2_quality(
    prediction: np.ndarray,
    truth: np.ndarray,
    peak: float = PEAK,
    white: float = WHITE,
    pixels_per_degree: float | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Of `hdrvdp`, version 2.2 alone."""
    from ldr2hdr_cli.evaluation.hdrvdp import hdrvdp2

    q = hdrvdp2(_on_screen(prediction, peak, white), _on_screen(truth, peak, white), pixels_per_degree, device)
    return {"hdrvdp2_q": q}


def hdrvdp3_quality(
    prediction: np.ndarray,
    truth: np.ndarray,
    peak: float = PEAK,
    white: float = WHITE,
    pixels_per_degree: float | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Of `hdrvdp`, version 3 alone, which takes half of the time."""
    from ldr2hdr_cli.evaluation.hdrvdp import hdrvdp3

    q, jod = hdrvdp3(_on_screen(prediction, peak, white), _on_screen(truth, peak, white), pixels_per_degree, device)
    return {"hdrvdp3_q": q, "hdrvdp3_jod": jod}


def by_stops_above(
    prediction: np.ndarray, truth: np.ndarray, clipped_channels: np.ndarray
) -> list[dict[str, float | int | None]]:
    """Errors of clipped values, by how many stops the truth lies above the clip level (1.0).

    One dict per entry of `BINS`, always all of them: `from`, `to` (stops; None for the open end), `count`
    (values), `bias` (signed median of log2(P / H), above 0 is too bright) and `rmse`, both in stops and NaN
    where `count` is 0. A mean over all of them hides that mild over-exposure and lamps ask for different
    things. Clipped values whose truth is under 1.0 (the soft edge of the mask) belong to no bin.

    clipped_channels: bool, H×W×3 (H×W stands for three equal channels).
    """
    p, t = _values(prediction, truth, clipped_channels)
    above = np.log2(np.maximum(t, 1e-30))
    difference = _stops(p, t, floor=1e-4)
    rows: list[dict[str, float | int | None]] = []
    for low, high in BINS:
        inside = difference[(above >= low) & (above < high)]
        rows.append(
            {
                "from": low,
                "to": None if high == inf else high,
                "count": int(inside.size),
                "bias": float(np.median(inside)) if inside.size else nan,
                "rmse": float(np.sqrt(_mean(inside**2))),
            }
        )
    return rows


def chroma_error(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean Δu′v′ (CIE 1976 UCS, CIE 015:2018): Euclidean distance of chromaticities; 0.004 is about visible.

    Black has no chromaticity and counts as the white point. A region of H×W×3 means any of its channels.
    """
    pixels = slice(None) if region is None else _per_pixel(region)
    p, t = (_uv(np.maximum(_finite(picture[pixels]).reshape(-1, 3), 0.0)) for picture in (prediction, truth))
    return _mean(np.linalg.norm(p - t, axis=-1))


def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    clipped: np.ndarray,
    *,
    peak: float = PEAK,
    white: float = WHITE,
    gamma: float = 2.0,
    cvvdp: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """All metrics of one picture under stable names.

    clipped: bool, H×W×3 per channel, or H×W. A key that ends in `_clipped` is the metric over pixels with any
    clipped channel. `cvvdp_jod` is left out with `cvvdp=False`. Floats, but for `by_stops_above` (see there).
    Raises ValueError where shapes differ, Ldr2hdrError where `cvvdp` is wanted and not installed.
    """
    if prediction.shape != truth.shape or clipped.shape[:2] != truth.shape[:2]:
        raise ValueError(f"shapes differ: {prediction.shape}, {truth.shape}, {clipped.shape}")
    area = _per_pixel(clipped)
    similarity = _pu21_ssim_map(prediction, truth, peak, white)  # once for both areas: it is the slow part
    result: dict[str, Any] = {"clipped_share": float(area.mean())}
    for suffix, region in (("", None), ("_clipped", area)):
        result["mse_gamma" + suffix] = mse_gamma(prediction, truth, region, gamma)
        result["rmse_stops" + suffix] = rmse_stops(prediction, truth, region)
        result["log_l1" + suffix] = log_l1(prediction, truth, region)
        result["pu21_psnr" + suffix] = pu21_psnr(prediction, truth, region, peak, white)
        result["pu21_ssim" + suffix] = _mean(similarity if region is None else similarity[region])
    result["pu21_vsi"] = pu21_vsi(prediction, truth, peak, white)
    result["bias_stops_clipped"] = bias_stops(prediction, truth, area)
    result["chroma_error_clipped"] = chroma_error(prediction, truth, area)
    result["by_stops_above"] = by_stops_above(prediction, truth, clipped)
    if cvvdp:
        result["cvvdp_jod"] = cvvdp_jod(prediction, truth, peak, white, device)
    return result


def _values(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The values of both pictures inside the region, flat, float64."""
    if region is None:
        return _finite(prediction).ravel(), _finite(truth).ravel()
    if region.ndim == 2:
        region = np.broadcast_to(region[..., None], truth.shape)
    return _finite(prediction[region]), _finite(truth[region])


def _finite(values: np.ndarray) -> np.ndarray:
    """float64, infinities as the largest half (see the head of this file)."""
    return np.nan_to_num(values.astype(np.float64), nan=np.nan, posinf=LARGEST_HALF, neginf=-LARGEST_HALF)


def _per_pixel(region: np.ndarray) -> np.ndarray:
    return np.any(region, axis=-1) if region.ndim == 3 else region


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else nan


def _stops(prediction: np.ndarray, truth: np.ndarray, floor: float) -> np.ndarray:
    return np.log2(np.maximum(prediction, floor)) - np.log2(np.maximum(truth, floor))


def _shown(linear: np.ndarray, peak: float, white: float) -> np.ndarray:
    """Luminance in cd/m² on the imagined display."""
    return np.clip(linear * white, PU21_RANGE[0], peak)


def _on_screen(picture: np.ndarray, peak: float, white: float) -> np.ndarray:
    """`_shown`, of at least SMALLEST pixels a side."""
    height, width = picture.shape[:2]
    margin = ((0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width)), (0, 0))
    return np.pad(_shown(_finite(picture), peak, white), margin, mode="edge")


def _pu21_ssim_map(prediction: np.ndarray, truth: np.ndarray, peak: float, white: float) -> np.ndarray:
    p, t = (pu21_encode(_shown(_finite(v) @ np.array(LUMINANCE), peak, white)) for v in (prediction, truth))
    return _ssim_map(p, t, dynamic_range=PU21_WHITE)


def _ssim_map(first: np.ndarray, second: np.ndarray, dynamic_range: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    def window(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma=1.5, radius=5, mode="nearest")

    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    mean1, mean2 = window(first), window(second)
    variance1 = window(first * first) - mean1 * mean1
    variance2 = window(second * second) - mean2 * mean2
    covariance = window(first * second) - mean1 * mean2
    return ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / (
        (mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2)
    )


def _uv(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 u′, v′ of linear Rec.709 values, N×3 → N×2."""
    x, y, z = (rgb.astype(np.float64) @ RGB_TO_XYZ.T).T
    total = x + 15 * y + 3 * z
    white = RGB_TO_XYZ.sum(axis=1)
    black = total <= 1e-8
    safe = np.where(black, 1.0, total)
    neutral = white @ np.array([1.0, 15.0, 3.0])
    u = np.where(black, 4 * white[0] / neutral, 4 * x / safe)
    v = np.where(black, 9 * white[1] / neutral, 9 * y / safe)
    return np.stack([u, v], axis=-1)


@lru_cache(maxsize=4)
def _cvvdp(peak: float, device: str) -> Any:
    """ColorVideoVDP set up for our display; kept, since it reads its tables from files."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its import says that there is no CUDA
    try:
        import pycvvdp
    except ImportError as error:
        raise Ldr2hdrError(
            'The ColorVideoVDP score needs the package cvvdp: pip install "ldr2hdr[evaluate]".'
        ) from error
    import torch

    photometry = pycvvdp.vvdp_display_photo_eotf(
        Y_peak=peak, contrast=peak / PU21_RANGE[0], source_colorspace="BT.709-linear", name="ldr2hdr"
    )
    geometry = pycvvdp.vvdp_display_geometry((1920, 1080), ppd=PIXELS_PER_DEGREE)
    return pycvvdp.cvvdp(
        display_photometry=photometry, display_geometry=geometry, quiet=True, device=torch.device(device)
    )
