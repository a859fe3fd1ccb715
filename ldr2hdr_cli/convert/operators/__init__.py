"""Classical expansion operators: predictable, without a network, and the baselines of `ldr2hdr evaluate`.

All of them work on luminance and multiply R, G and B by the same ratio, so chromaticity stays. All of them
are scaled alike: `peak` is the luminance given to LDR white where an operator expands fully, and LDR white is
1.0 where it leaves the picture alone. Their papers aim at a display in cd/m²; here the display's white is
1.0 and its peak is `peak`. Formulas are the papers'; where a paper leaves a figure open, it is the one of
F. Banterle's HDR Toolbox; each docstring says where we deviate. Lengths in pixels are for pictures of 1080
lines and follow the shorter side.

`curves` holds the operators that are one curve, `highlights` those that look for what is bright. Wang et al. 2007,
"High dynamic range image hallucination", is not among them: a user has to pick, by strokes, the texture that fills
its clipped areas.
"""

from collections.abc import Callable

import numpy as np

from ldr2hdr_cli.convert.operators import curves, highlights
from ldr2hdr_cli.convert.operators.given import LUMINANCE_WEIGHTS, OperatorInput
from model.errors import Ldr2hdrError

PEAK = 8.0  # of LDR white: three stops, a middle course between lamps and snow
THRESHOLD = 0.96  # display-encoded value from which a channel counts as saturated, as for the network

Operator = Callable[[OperatorInput], np.ndarray]

METHODS: dict[str, Operator] = {
    "clip": curves.clip,
    "landis2002": curves.landis2002,
    "banterle2006": highlights.banterle2006,
    "meylan2006": highlights.meylan2006,
    "akyuz2007": curves.akyuz2007,
    "rempel2007": highlights.rempel2007,
    "didyk2008": highlights.didyk2008,
    "masia2009": curves.masia2009,
    "kovaleski2014": highlights.kovaleski2014,
    "bist2017": curves.bist2017,
    "masia2017": curves.masia2017,
    "luzardo2018": curves.luzardo2018,
}


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
    saturated (rempel2007, didyk2008 and kovaleski2014).
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
    return METHODS[method](OperatorInput(encoded, linear, linear @ LUMINANCE_WEIGHTS, float(peak), threshold))
