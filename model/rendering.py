"""What becomes of a picture after the network: eq. 1, then colour and exposure, up to what is written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.codes import bands, mix
from model.device import Down
from model.exposure import Encoding, compose, exposure_mask, linearise
from model.gain_map import OwnLight

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

HALF_MAX = 65504.0  # largest finite IEEE 754 binary16
_DARKEST = 1e-6  # linear; stands for black where a ratio to it is taken


@dataclass(frozen=True)
class Rendering:
    """From T, M and Y to the values of a result, in this order.

    encoding: how T is linearised in eq. 1. strength: scales the log of what the network adds above the clip level; 1 is
    the network's answer, 0 leaves the clip level. matrix: from the source's linear RGB to the result's, rows first;
    None: the source's primaries are kept. gain: linear, of `--exposure`.
    """

    encoding: Encoding = field(default_factory=Encoding)
    strength: float = 1.0
    matrix: Matrix | None = None
    gain: float = 1.0


class Result(NamedTuple):
    """A picture as it is written, on the host.

    pixels: H×W×3, float16, within its range, or float32. lowest, peak: of the light before matrix and gain, LDR white
    1.0; NaN where anything is. clamped: values that lay beyond half's range. clipped: share of pixels with a channel
    whose mask is below 1.
    """

    pixels: np.ndarray
    lowest: float
    peak: float
    clamped: int
    clipped: float


class Rendered:
    """A picture on its way down from its device; `fetch` waits for it, in any thread."""

    def __init__(self, pixels: Tensor, facts: Tensor) -> None:
        """pixels: as in `Result`. facts: int32, the bits of lowest and peak, and how many are clamped and clipped."""
        self._down = Down(pixels, facts)

    def fetch(self) -> Result:
        pixels, facts = self._down.wait()
        lowest, peak = facts[:2].view(torch.float32).tolist()
        clamped, clipped = facts[2:].tolist()
        return Result(pixels.numpy(), lowest, peak, clamped, clipped / (pixels.shape[0] * pixels.shape[1]))


def render(
    ldr: Tensor,
    clipped: Tensor,
    log_hdr: Tensor | None,
    rendering: Rendering,
    threshold: float,
    floor: bool,
    own: OwnLight | None = None,
    *,
    half: bool,
) -> Rendered:
    """From the network's output to what is written, without waiting for the device.

    ldr: T, float32 H×W×3. clipped: where a channel's mask is below 1, bool H×W. log_hdr: Y, float32 H×W×3, None where
    nothing is clipped. threshold: α. floor: see `compose_hdr`. own: what a gain map says. half: see
    `rendered`. Bit for bit the linearised T where the mask is 1, but for matrix and gain.
    """

    def light(rows: slice) -> Tensor:
        own_log = None if log_hdr is None else log_hdr[rows]
        if ldr.device.type == "cpu" and not clipped[rows].any():
            own_log = None
        hdr = illuminate(ldr[rows], own_log, rendering, threshold, floor)
        if own is None:
            return hdr
        seen = linearise(ldr[rows], rendering.encoding.transfer, rendering.encoding.gamma)
        return own.of(rows).beside(hdr, seen, exposure_mask(ldr[rows], threshold))

    return rendered(light, clipped, rendering, half=half)


def rendered(light: Callable[[slice], Tensor], clipped: Tensor, rendering: Rendering, *, half: bool) -> Rendered:
    """Matrix, gain, and the type that is written.

    light: rows of a linear picture, float32 H×W×3. clipped: bool H×W. half: float16, held to its range, not float32.
    """
    shape, device = (*clipped.shape, 3), clipped.device
    pixels = torch.empty(shape, dtype=torch.float16 if half else torch.float32, device=device)
    matrix = None if rendering.matrix is None else np.array(rendering.matrix)
    extremes, clamped = [], []
    for rows in bands(pixels):
        values = light(rows)
        extremes.append(torch.stack(torch.aminmax(values)))
        if matrix is not None:
            values = mix(values, matrix, torch.empty_like(values))
        if rendering.gain != 1:
            values = values * rendering.gain
        # To look whether anything is to be clamped is to wait, but on a CPU.
        if half and (device.type != "cpu" or torch.stack(torch.aminmax(values)).abs().max() > HALF_MAX):
            clamped.append(torch.count_nonzero(values.abs() > HALF_MAX))
            values = values.clamp(-HALF_MAX, HALF_MAX)
        pixels[rows] = values
    lowest, peak = torch.stack(extremes).unbind(1)
    counts = torch.stack([sum(clamped, torch.zeros_like(torch.count_nonzero(clipped))), torch.count_nonzero(clipped)])
    facts = torch.cat((torch.stack((lowest.amin(), peak.amax())).view(torch.int32), counts.to(torch.int32)))
    return Rendered(pixels, facts)


def illuminate(ldr: Tensor, log_hdr: Tensor | None, rendering: Rendering, threshold: float, floor: bool) -> Tensor:
    """Eq. 1 with the strength that is asked for: linear, LDR white 1.0. Arguments as for `render`."""
    seen = linearise(ldr, rendering.encoding.transfer, rendering.encoding.gamma)
    if log_hdr is None:
        return seen
    made = torch.expm1(log_hdr)
    if rendering.strength != 1:
        level = seen.clamp(min=_DARKEST)
        made = (made / level).pow_(rendering.strength).mul_(level)
    return compose(seen, exposure_mask(ldr, threshold), made, floor)
