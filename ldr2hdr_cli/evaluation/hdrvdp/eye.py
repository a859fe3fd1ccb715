"""From light to neural responses: the eye's optics, its adaptation, cones and rods."""

from functools import lru_cache

import numpy as np
import torch

from ldr2hdr_cli.evaluation.hdrvdp import calibration as c
from ldr2hdr_cli.evaluation.hdrvdp.sampling import filtered_mirrored, gaussian_blur, interpolated

LUMINANCE_RANGE = (-5.0, 5.0)  # log10 cd/m², of every table over luminance
TABLE_SIZE = 2048


def responses(light: torch.Tensor, pixels_per_degree: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Achromatic response in units of just noticeable differences, and the adapting luminance in cd/m².

    light: float64, 1×H×W luminance or 3×H×W of the display's R, G and B, cd/m². Both results are H×W, float32.
    """
    # In float64, since the Fourier transform's error is that of the brightest pixel, everywhere.
    retina = filtered_mirrored(light, pixels_per_degree, optical_transfer).clamp(1e-5, 1e10)
    matrix = c.D65_TO_RECEPTORS if len(light) == 1 else c.DISPLAY_TO_RECEPTORS
    receptors = torch.einsum("rc,chw->rhw", torch.tensor(matrix).to(light), retina).clamp(1e-8, 1e10)
    adaptation = _adapting_luminance(receptors[0] + receptors[1], pixels_per_degree)
    level = (receptors * _pupil_area_ratio(adaptation, pixels_per_degree)).log10()
    cones, rods = (table.to(level) for table in _receptor_tables())
    response = torch.zeros_like(adaptation)
    for table, at in zip((cones, cones, rods), level, strict=True):
        response += interpolated(table, *LUMINANCE_RANGE, at)
    return response.float(), adaptation.float()


def optical_transfer(cycles_per_degree: torch.Tensor) -> torch.Tensor:
    """Modulation transfer of the eye's optics, whose tail is glare (Mantiuk et al. 2011, eq. 2)."""
    parts = [a * torch.exp(-b * cycles_per_degree) for a, b in c.OPTICS]
    return torch.stack(parts).sum(dim=0)


def _adapting_luminance(luminance: torch.Tensor, pixels_per_degree: float) -> torch.Tensor:
    """A geometric mean around each pixel (Vangorp et al. 2015)."""
    return gaussian_blur(luminance.clamp(min=1e-6).log(), c.ADAPTATION_RADIUS * pixels_per_degree).exp()


def _pupil_area_ratio(adaptation: torch.Tensor, pixels_per_degree: float) -> torch.Tensor:
    """Light that this observer's pupil admits, over that of the observers that the metric was fitted to.

    Watson and Yellott 2012, "A unified formula for light-adapted pupil size".
    """
    flux = adaptation.log().mean().exp() * adaptation.numel() / pixels_per_degree**2  # cd·deg²/m²
    power = (flux / 846) ** 0.41
    diameter = 7.75 - 5.75 * power / (power + 2)
    mine, theirs = (
        diameter + (age - c.PUPIL_AGE) * (0.02132 - 0.009562 * diameter) for age in (c.AGE, c.REFERENCE_AGE)
    )
    return (mine / theirs) ** 2


@lru_cache
def _receptor_tables() -> tuple[torch.Tensor, torch.Tensor]:
    """Responses of a cone and of rods by log10 luminance, in JND: the integral of sensitivity over it."""
    level = np.linspace(*LUMINANCE_RANGE, TABLE_SIZE)
    luminance = 10**level
    rods = _rod_sensitivity(luminance)
    joint, edge, slope, low = c.JOINT_SENSITIVITY
    both = joint * ((edge / luminance) ** slope + 1) ** -low
    # L and M cones share what is not the rods', each at half the luminance
    doubled = np.minimum(2 * luminance, luminance[-1])
    cones = 0.5 * np.interp(doubled, luminance, np.maximum(both - rods, 1e-3))
    return _integral(level, cones), _integral(level, rods)


def _rod_sensitivity(luminance: np.ndarray) -> np.ndarray:
    peak, low, low_power, high, high_power, sensitivity = c.ROD_SENSITIVITY
    distance = np.log10(luminance / peak)
    fall = np.where(distance > 0, np.abs(distance) ** high_power / high, np.abs(distance) ** low_power / low)
    return 10**sensitivity * np.exp(-fall)


def _integral(level: np.ndarray, sensitivity: np.ndarray) -> torch.Tensor:
    """∫ S/L dL = ∫ S·ln 10 d(log10 L), trapezoidal, from the table's first luminance."""
    steps = 0.5 * (sensitivity[1:] + sensitivity[:-1]) * np.diff(level) * np.log(10)
    return torch.from_numpy(c.SENSITIVITY * np.concatenate([[0.0], np.cumsum(steps)]))
