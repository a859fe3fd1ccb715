"""Quality of a picture beside its reference: differences of the bands of two responses, masked and pooled."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ldr2hdr_cli.evaluation.hdrvdp import calibration as c
from ldr2hdr_cli.evaluation.hdrvdp.eye import LUMINANCE_RANGE, optical_transfer, responses
from ldr2hdr_cli.evaluation.hdrvdp.filters import isotropic_filters
from ldr2hdr_cli.evaluation.hdrvdp.pyramid import possible_levels, steerable_pyramid
from ldr2hdr_cli.evaluation.hdrvdp.sampling import frequencies, interpolated, resized

SMALLEST = 16  # pixels a side
CSF_SIZE = 256  # luminances for which contrast sensitivity is tabulated


class Quality(NamedTuple):
    """q: 10 is the best, less is worse, without a lower end. q_jod: the same in just-objectionable differences."""

    q: float
    q_jod: float


def angular_resolution(
    diagonal: float = 24.0, resolution: tuple[int, int] = (1920, 1080), distance: float = 1.0
) -> float:
    """Of a flat display with square pixels. diagonal: inches. resolution: width, height. distance: metres."""
    width, height = resolution
    height_m = diagonal * 0.0254 * height / math.hypot(width, height)
    return height / math.degrees(2 * math.atan(0.5 * height_m / distance))


def hdrvdp3(
    test: np.ndarray, reference: np.ndarray, pixels_per_degree: float | None = None, device: str | torch.device = "cpu"
) -> Quality:
    """HDR-VDP-3.0.7, task "quality".

    test, reference: cd/m², as a display shows them: H×W of luminance, or H×W×3 of linear BT.709, each side at least
    16. pixels_per_degree: None for `angular_resolution()`. A NaN makes the quality NaN. Raises ValueError for other
    shapes.
    """
    mine, wanted = _light(test, device), _light(reference, device)
    if mine.shape != wanted.shape:
        raise ValueError(f"shapes differ: {np.shape(test)}, {np.shape(reference)}")
    if mine.isnan().any() or wanted.isnan().any():
        return Quality(math.nan, math.nan)
    error = _error(mine, wanted, pixels_per_degree or angular_resolution())
    q = c.BEST_QUALITY + c.QUALITY_FLOOR - math.log(math.exp(c.QUALITY_FLOOR) + error)
    return Quality(q, 10 - c.JOD[0] * max(10 - q, 0.0) ** c.JOD[1])


def _light(picture: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """1×H×W or 3×H×W, float64, in the display's own primaries."""
    values = torch.as_tensor(np.asarray(picture), dtype=torch.float64, device=device)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or min(values.shape[:2]) < SMALLEST:
        raise ValueError(f"{tuple(values.shape)} is neither H×W nor H×W×3 of at least {SMALLEST} a side")
    if values.ndim == 2:
        return values[None]
    native = torch.einsum("dc,hwc->dhw", torch.tensor(c.BT709_TO_DISPLAY).to(values), values)
    return native.clamp(min=1e-6)


def _error(test: torch.Tensor, reference: torch.Tensor, pixels_per_degree: float) -> float:
    """Masked difference, pooled over each band and averaged over bands."""
    differs = (((test - reference).abs() / reference) > c.VISIBLE_DIFFERENCE).any(dim=0).float()
    mine, my_luminance = _bands(test, pixels_per_degree)
    theirs, their_luminance = _bands(reference, pixels_per_degree)
    level = (0.5 * (my_luminance + their_luminance)).log10().clamp(*LUMINANCE_RANGE)
    masks = [_mutual(t, r) for t, r in zip(mine, theirs, strict=True)]
    base = len(masks) - 1
    total = 0.0
    for number, (t, r) in enumerate(zip(mine, theirs, strict=True)):
        size = (t.shape[0], t.shape[1])
        here = resized(level, size).clamp(*LUMINANCE_RANGE)
        if number == base:
            sensitivity = _base_sensitivity(t - r, here, pixels_per_degree / 2 ** (number - 1))
        else:
            table = _csf_table(pixels_per_degree / 2 ** (number + 1)).to(here)
            sensitivity = interpolated(table, *LUMINANCE_RANGE, here)
        # The lowest band is masked by its neighbour, and masks none.
        neighbours = masks[max(number - 1, 0) : number] + masks[number + 1 : min(number + 2, base)]
        visible = _masked(t - r, sensitivity, masks[number], neighbours) * resized(differs, size)
        total += float(visible.abs().pow(c.POOLING).mean(dtype=torch.float64)) ** (1 / c.POOLING)
    return total / len(masks)


def _bands(light: torch.Tensor, pixels_per_degree: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Bands of the response, H×W each, from fine to coarse, the lowest without its mean; adapting luminance."""
    filters = isotropic_filters()
    wanted = math.ceil(math.log2(pixels_per_degree)) - 2  # so that the lowest bands are about 2 and 1 cycles a degree
    levels = max(0, min(wanted, possible_levels(light.shape[1], light.shape[2], filters)))
    response, luminance = responses(light, pixels_per_degree)
    *bands, base = (band[0] for band in steerable_pyramid(response, levels, filters))
    return [*bands, base - base.mean()], luminance


def _mutual(test: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """What both bands hold, averaged over 3×3 pixels (0 outside): it masks differences."""
    shared = torch.minimum(test.abs(), reference.abs())
    return F.avg_pool2d(shared[None, None], 3, stride=1, padding=1)[0, 0]


def _masked(
    difference: torch.Tensor, sensitivity: torch.Tensor, own: torch.Tensor, neighbours: list[torch.Tensor]
) -> torch.Tensor:
    """Size of the perceived difference (Mantiuk et al. 2011, eq. 11 to 13)."""
    size = (own.shape[0], own.shape[1])
    around = sum((resized(mask, size).clamp(min=0) for mask in neighbours), torch.zeros_like(own))
    noise = c.MASKING_SELF * own**c.INHIBITION + c.MASKING_NEIGHBOUR * around**c.INHIBITION
    return difference.abs() ** c.EXCITATION / torch.sqrt(sensitivity ** (-2 * c.EXCITATION) + noise**2)


def _base_sensitivity(difference: torch.Tensor, level: torch.Tensor, samples_per_degree: float) -> torch.Tensor:
    """To the strongest frequency of the lowest band, at the mean luminance; 0 for no difference."""
    spectrum = torch.fft.rfft2(difference.double()).abs()
    spectrum[0, 0] = 0
    cycles = frequencies(difference.shape[0], difference.shape[1], samples_per_degree, spectrum).flatten()[
        spectrum.argmax()
    ]
    sensitivity = _contrast_sensitivity(float(cycles), np.array([float(level.mean())]))
    return torch.as_tensor(sensitivity).to(difference)


def _csf_table(cycles_per_degree: float) -> torch.Tensor:
    return torch.from_numpy(_contrast_sensitivity(cycles_per_degree, np.linspace(*LUMINANCE_RANGE, CSF_SIZE)))


def _contrast_sensitivity(cycles_per_degree: float, level: np.ndarray) -> np.ndarray:
    """Neural contrast sensitivity at log10 luminances: without the eye's optics (Mantiuk et al. 2011, eq. 8)."""
    if cycles_per_degree <= 1e-4:
        return np.zeros_like(level)
    known = np.log10(c.CSF_LUMINANCE)
    p1, p2, p3, p4 = (np.interp(level, known, column) for column in np.transpose(c.CSF))
    low = (1 - math.exp(-((cycles_per_degree / 7) ** 2))) ** p3
    optics = float(optical_transfer(torch.tensor(cycles_per_degree, dtype=torch.float64)))
    sensitivity: np.ndarray = p4 / np.sqrt((1 + (p1 * cycles_per_degree) ** p2) / low) / optics
    return sensitivity
