"""HDR-VDP-2.2, quality Q.

Mantiuk et al. 2011, "HDR-VDP-2: A calibrated visual metric for visibility and quality predictions in all luminance
conditions" (ACM TOG 30(4)), with the pooling of Narwaria et al. 2015, "HDR-VDP-2.2: a calibrated method for
objective quality prediction of high-dynamic range and standard images" (J. Electronic Imaging 24(1)).
"""

import math

import numpy as np
import torch

from ldr2hdr_cli.evaluation.hdrvdp import calibration as c
from ldr2hdr_cli.evaluation.hdrvdp.contrast import (
    csf,
    csf_parameters,
    differing_pixels,
    neighbours_signal,
    perceived,
    sensitivity_at,
    shared_signal,
)
from ldr2hdr_cli.evaluation.hdrvdp.eye import LUMINANCE_RANGE, achromatic_response, receptor_signals
from ldr2hdr_cli.evaluation.hdrvdp.filters import oriented_filters
from ldr2hdr_cli.evaluation.hdrvdp.pictures import angular_resolution, light_of
from ldr2hdr_cli.evaluation.hdrvdp.pyramid import possible_levels, steerable_pyramid
from ldr2hdr_cli.evaluation.sampling import filtered, resized


def hdrvdp2(
    test: np.ndarray, reference: np.ndarray, pixels_per_degree: float | None = None, device: str | torch.device = "cpu"
) -> float:
    """Quality of `test` beside `reference`, as versions 2.2.1 and 2.2.2 scale it: 100 is the best, less is worse.

    (Version 2.2.0 called another number Q, which varied with the size of the pyramid.) test, reference: cd/m², as a
    display shows them, in the dark: H×W of luminance, or H×W×3 of linear BT.709, each side at least 16.
    pixels_per_degree: None for `angular_resolution()`. A NaN makes the quality NaN. Raises ValueError for other
    shapes.
    """
    mine, wanted = light_of(test, reference, device)
    if mine.isnan().any() or wanted.isnan().any():
        return math.nan
    return 100.0 - _error(mine, wanted, pixels_per_degree or angular_resolution())


def _error(test: torch.Tensor, reference: torch.Tensor, pixels_per_degree: float) -> float:
    """Logarithms of the perceived differences of all bands, weighted by frequency."""
    differs = differing_pixels(test, reference)
    theirs, their_luminance, surround = _bands(reference, pixels_per_degree, None)
    mine, my_luminance, _ = _bands(test, pixels_per_degree, surround)
    level = (0.5 * (my_luminance + their_luminance)).log10().clamp(*LUMINANCE_RANGE)
    masks = [shared_signal(t, r) for t, r in zip(mine, theirs, strict=True)]
    total = 0.0
    for number, (t, r) in enumerate(zip(mine, theirs, strict=True)):
        size = (t.shape[1], t.shape[2])
        cycles = pixels_per_degree / 2 ** (number + 1)
        if number < len(masks) - 1:
            sensitivity = sensitivity_at(resized(level, size).clamp(*LUMINANCE_RANGE), cycles, c.VERSION_2)
        else:
            sensitivity = torch.ones_like(t)  # it is filtered by contrast sensitivity
        gain = 2**number  # of the band in the pyramid, in whose units differences are pooled
        masking = gain * _masking(masks, number, sensitivity)
        seen = gain * perceived(t - r, sensitivity, masking, c.VERSION_2) * resized(differs, size)
        errors = seen.double().square().sum(dim=(1, 2)).sqrt() / (size[0] * size[1])
        weight = float(np.interp(cycles, c.QUALITY_FREQUENCY, c.QUALITY_WEIGHT))
        total += weight * float(torch.log(errors / c.INVISIBLE + 1).sum())
    return total


def _bands(
    light: torch.Tensor, pixels_per_degree: float, surround: torch.Tensor | None
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Bands of the response, orientations×H×W, from fine to coarse; adapting luminance; mean of the lowest band.

    surround: what the lowest band has outside the picture; None for its own mean.
    """
    filters = oriented_filters()
    signals = receptor_signals(light, pixels_per_degree, c.VERSION_2, c.SURROUND)
    luminance = signals[0] + signals[1]
    response = achromatic_response(signals, c.VERSION_2)
    levels = possible_levels(light.shape[1], light.shape[2], filters)
    *bands, base = steerable_pyramid(response - response.mean(), levels, filters)
    around = base.mean() if surround is None else surround
    parameters = csf_parameters(np.log10(float(luminance.mean())), c.VERSION_2)
    samples = pixels_per_degree / 2 ** (levels + 1) * math.sqrt(2)  # a degree; measured to work better than half of it
    seen = filtered(base.double(), samples, lambda cycles: csf(cycles, parameters), float(around))
    return [*bands, seen.float()], luminance.float(), around


def _masking(masks: list[torch.Tensor], number: int, sensitivity: torch.Tensor) -> torch.Tensor:
    own = masks[number]
    others = (own.sum(dim=0) - own).clamp(min=0)
    weights = (c.VERSION_2.own, c.VERSION_2.orientations, c.VERSION_2.neighbours)
    signals = (own, others, neighbours_signal(masks, number))
    parts = [w * (sensitivity * s) ** c.VERSION_2.inhibition for w, s in zip(weights, signals, strict=True)]
    return torch.stack(parts).sum(dim=0)
