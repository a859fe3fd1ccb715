"""HDR-VDP-3.0.7, task "quality".

Mantiuk, Hammou and Hanji 2023, "HDR-VDP-3: A multi-metric for predicting image differences, quality and contrast
distortions in high dynamic range and regular content" (arXiv 2304.13625).
"""

import math
from typing import NamedTuple

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
from ldr2hdr_cli.evaluation.hdrvdp.eye import (
    LUMINANCE_RANGE,
    achromatic_response,
    optical_transfer,
    receptor_signals,
)
from ldr2hdr_cli.evaluation.hdrvdp.filters import isotropic_filters
from ldr2hdr_cli.evaluation.hdrvdp.pictures import angular_resolution, light_of
from ldr2hdr_cli.evaluation.hdrvdp.pyramid import possible_levels, steerable_pyramid
from ldr2hdr_cli.evaluation.sampling import frequencies, gaussian_blur, resized


class Quality(NamedTuple):
    """q: 10 is the best, less is worse, without a lower end. q_jod: the same in just-objectionable differences."""

    q: float
    q_jod: float


def hdrvdp3(
    test: np.ndarray, reference: np.ndarray, pixels_per_degree: float | None = None, device: str | torch.device = "cpu"
) -> Quality:
    """Quality of `test` beside `reference`, for an observer of 24 years.

    test, reference: cd/m², as a display shows them: H×W of luminance, or H×W×3 of linear BT.709, each side at least
    16. pixels_per_degree: None for `angular_resolution()`. A NaN makes the quality NaN. Raises ValueError for other
    shapes.
    """
    mine, wanted = light_of(test, reference, device)
    if mine.isnan().any() or wanted.isnan().any():
        return Quality(math.nan, math.nan)
    if len(mine) == 3:
        mine, wanted = _on_display(mine), _on_display(wanted)
    error = _error(mine, wanted, pixels_per_degree or angular_resolution())
    q = c.BEST_QUALITY + c.QUALITY_FLOOR - math.log(math.exp(c.QUALITY_FLOOR) + error)
    return Quality(q, 10 - c.JOD[0] * max(10 - q, 0.0) ** c.JOD[1])


def _on_display(light: torch.Tensor) -> torch.Tensor:
    return torch.einsum("dc,chw->dhw", torch.tensor(c.BT709_TO_DISPLAY).to(light), light).clamp(min=1e-6)


def _error(test: torch.Tensor, reference: torch.Tensor, pixels_per_degree: float) -> float:
    """Perceived difference, pooled over each band and averaged over bands."""
    differs = differing_pixels(test, reference)
    mine, my_adaptation = _bands(test, pixels_per_degree)
    theirs, their_adaptation = _bands(reference, pixels_per_degree)
    level = (0.5 * (my_adaptation + their_adaptation)).log10().clamp(*LUMINANCE_RANGE)
    masks = [shared_signal(t, r) for t, r in zip(mine, theirs, strict=True)]
    total = 0.0
    for number, (t, r) in enumerate(zip(mine, theirs, strict=True)):
        size = (t.shape[1], t.shape[2])
        here = resized(level, size).clamp(*LUMINANCE_RANGE)
        if number < len(masks) - 1:
            cycles = pixels_per_degree / 2 ** (number + 1)
            sensitivity = sensitivity_at(here, cycles, c.VERSION_3, 1 / _transfer(cycles))
        else:
            sensitivity = _base_sensitivity(t - r, here, pixels_per_degree / 2 ** (number - 1))
        seen = perceived(t - r, sensitivity, _masking(masks, number), c.VERSION_3) * resized(differs, size)
        total += float(seen.abs().pow(c.POOLING).mean(dtype=torch.float64)) ** (1 / c.POOLING)
    return total / len(masks)


def _bands(light: torch.Tensor, pixels_per_degree: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Bands of the response, 1×H×W each, from fine to coarse, the lowest without its mean; adapting luminance."""
    filters = isotropic_filters()
    wanted = math.ceil(math.log2(pixels_per_degree)) - 2  # so that the lowest bands are about 2 and 1 cycles a degree
    levels = max(0, min(wanted, possible_levels(light.shape[1], light.shape[2], filters)))
    signals = receptor_signals(light, pixels_per_degree, c.VERSION_3, surround=None).clamp(1e-8, 1e10)
    adaptation = _adapting_luminance(signals[0] + signals[1], pixels_per_degree)
    response = achromatic_response(signals * _pupil_area_ratio(adaptation, pixels_per_degree), c.VERSION_3)
    *bands, base = steerable_pyramid(response, levels, filters)
    return [*bands, base - base.mean()], adaptation.float()


def _adapting_luminance(luminance: torch.Tensor, pixels_per_degree: float) -> torch.Tensor:
    """A geometric mean around each pixel (Vangorp et al. 2015)."""
    return gaussian_blur(luminance.clamp(min=1e-6).log(), c.ADAPTATION_RADIUS * pixels_per_degree).exp()


def _pupil_area_ratio(adaptation: torch.Tensor, pixels_per_degree: float) -> torch.Tensor:
    """Light that this observer's pupil admits, over that of the observers whom the metric was fitted to.

    Watson and Yellott 2012, "A unified formula for light-adapted pupil size".
    """
    flux = adaptation.log().mean().exp() * adaptation.numel() / pixels_per_degree**2  # cd·deg²/m²
    power = (flux / 846) ** 0.41
    diameter = 7.75 - 5.75 * power / (power + 2)
    mine, theirs = (
        diameter + (age - c.PUPIL_AGE) * (0.02132 - 0.009562 * diameter) for age in (c.AGE, c.REFERENCE_AGE)
    )
    return (mine / theirs) ** 2


def _masking(masks: list[torch.Tensor], number: int) -> torch.Tensor:
    own = c.VERSION_3.own * masks[number] ** c.VERSION_3.inhibition
    return own + c.VERSION_3.neighbours * neighbours_signal(masks, number) ** c.VERSION_3.inhibition


def _base_sensitivity(difference: torch.Tensor, level: torch.Tensor, samples_per_degree: float) -> torch.Tensor:
    """To the strongest frequency of the lowest band, at the mean luminance; 0 for no difference."""
    spectrum = torch.fft.rfft2(difference[0].double()).abs()
    spectrum[0, 0] = 0
    height, width = difference.shape[1:]
    cycles = frequencies(height, width, samples_per_degree, spectrum).flatten()[spectrum.argmax()].cpu()
    mean = np.array(float(level.mean()))
    return (csf(cycles, csf_parameters(mean, c.VERSION_3)) / _transfer(float(cycles))).to(difference)


def _transfer(cycles_per_degree: float) -> float:
    """Of the eye's optics, which the neural contrast sensitivity of this version is without."""
    return float(optical_transfer(torch.tensor(cycles_per_degree).double()))
