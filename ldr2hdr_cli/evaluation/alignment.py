"""Take out of a comparison what is not reconstruction: overall scale and, on request, the camera curve.

A single photograph does not say how bright its scene was, and it does not say which tone curve the camera
applied. Hanji et al. 2022 ("Comparison of Single Image HDR Reconstruction Methods – the Caveats of Quality
Assessment", SIGGRAPH) and Eilertsen et al. 2021 ("How to Cheat with Metrics in Single-Image HDR
Reconstruction", ICCV Workshops) show that those two can outweigh the highlights in a score. Both are
estimated here from well-exposed pixels only, so that neither can be bought with what a method invents.
"""

from collections.abc import Callable

import numpy as np

DARKEST_USED = 2.0**-10  # of the truth's well-exposed white: below it an 8-bit code is mostly rounding
CURVE_KNOTS = 64  # quantile bins of the curve: ten per stop or so, hundreds of pixels each

Curve = Callable[[np.ndarray], np.ndarray]


def align_scale(prediction: np.ndarray, truth: np.ndarray, well_exposed: np.ndarray) -> float:
    """The factor to multiply `prediction` with so that it has the scale of `truth`.

    The median over well-exposed values of log(truth / prediction), exponentiated: half of the values may be
    wrong before it moves. Values more than ten stops under the 99th percentile of the well-exposed truth are
    left out (rounding of an 8-bit source), as are predictions ≤ 0.

    prediction, truth: linear, H×W×3. well_exposed: bool, H×W or H×W×3.
    Returns 1.0 where nothing is well exposed: there is nothing to align with.
    """
    log_prediction, log_truth = _well_exposed_logs(prediction, truth, well_exposed)
    if log_prediction.size == 0:
        return 1.0
    return float(np.exp2(np.median(log_truth - log_prediction)))


def fit_curve(prediction: np.ndarray, truth: np.ndarray, well_exposed: np.ndarray) -> Curve:
    """The monotone curve that carries well-exposed values of `prediction` onto `truth`.

    One curve for the three channels, fitted in log2 against log2: medians of up to 64 quantile bins, made
    monotone by isotonic regression weighted with the bins' counts, joined by a monotone cubic (PCHIP).
    Outside the fitted range the curve goes on with slope 1 in log-log, which is a constant factor: at the top
    it is the factor at the brightest well-exposed value, so the fit moves highlights with the rest of the
    picture and can neither stretch nor squeeze the stops above the clip level.

    Purpose after Hanji et al. 2022, section "CRF correction". They fit a cubic polynomial to PQ-encoded
    luminance and a second one to u′v′, over all pixels. Ours differs on purpose: monotone, no correction of
    colour, and no clipped pixel takes part.

    prediction, truth: linear, H×W×3. well_exposed: bool, H×W or H×W×3.
    Returns a function from an array of any shape to float32 of that shape; negative values count as 0, 0 stays
    0 and NaN stays NaN. It includes the scale, so `align_scale` is not needed as well. With fewer than 16
    usable values it is the factor of `align_scale` alone.
    """
    log_prediction, log_truth = _well_exposed_logs(prediction, truth, well_exposed)
    if log_prediction.size < 16:
        factor = align_scale(prediction, truth, well_exposed)
        return lambda values: (np.maximum(values, 0.0) * factor).astype(np.float32)
    x, y = _monotone_knots(log_prediction, log_truth)
    return _curve_through(x, y)


def _well_exposed_logs(
    prediction: np.ndarray, truth: np.ndarray, well_exposed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log2 of the usable well-exposed values of both pictures, flat."""
    region = np.broadcast_to(_per_channel(well_exposed), truth.shape)
    p, t = prediction[region].astype(np.float64), truth[region].astype(np.float64)
    if t.size == 0:
        return p, t
    # The limit follows the truth alone, so that scaling the prediction scales the answer exactly.
    usable = (t > DARKEST_USED * np.percentile(t, 99)) & (p > 0) & np.isfinite(p) & np.isfinite(t)
    return np.log2(p[usable]), np.log2(t[usable])


def _per_channel(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 3 else mask[..., None]


def _monotone_knots(log_prediction: np.ndarray, log_truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import isotonic_regression

    edges = np.unique(np.quantile(log_prediction, np.linspace(0, 1, CURVE_KNOTS + 1)[1:-1]))
    bins = np.searchsorted(edges, log_prediction, side="right")
    knots = []
    for index in np.unique(bins):
        members = bins == index
        knots.append((np.median(log_prediction[members]), np.median(log_truth[members]), members.sum()))
    x, y, count = np.array(knots, dtype=np.float64).T
    fitted = isotonic_regression(y, weights=count).x
    keep = np.concatenate([[True], np.diff(x) > 1e-9])  # PCHIP wants strictly rising abscissae
    return x[keep], fitted[keep]


def _curve_through(x: np.ndarray, y: np.ndarray) -> Curve:
    from scipy.interpolate import PchipInterpolator

    inside = PchipInterpolator(x, y) if x.size > 1 else (lambda v: np.full_like(v, y[0]))

    def curve(values: np.ndarray) -> np.ndarray:
        positive = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
        logs = np.log2(np.maximum(positive, np.finfo(np.float64).tiny))
        nearest = np.clip(logs, x[0], x[-1])
        result = np.exp2(inside(nearest) + (logs - nearest))
        return np.where(positive == 0, 0.0, result).astype(np.float32)

    return curve
