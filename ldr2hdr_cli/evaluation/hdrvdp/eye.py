"""From light to neural responses, as both versions have it: the eye's optics, cones and rods."""

from functools import lru_cache

import numpy as np
import torch

from ldr2hdr_cli.evaluation.hdrvdp.calibration import OPTICS, Calibration
from ldr2hdr_cli.evaluation.sampling import filtered, interpolated

LUMINANCE_RANGE = (-5.0, 5.0)  # log10 cd/m², of every table over luminance
TABLE_SIZE = 2048


def receptor_signals(
    light: torch.Tensor, pixels_per_degree: float, calibration: Calibration, surround: float | None
) -> torch.Tensor:
    """Light that L cones, M cones and rods catch: 3×H×W, cd/m².

    light: 1×H×W luminance or 3×H×W of a display, cd/m², in float64, since the Fourier transform's error is that of
    the brightest pixel, everywhere. surround: cd/m² outside the picture; None mirrors it.
    """
    retina = filtered(light, pixels_per_degree, optical_transfer, surround).clamp(1e-5, 1e10)
    matrix = calibration.white if len(light) == 1 else calibration.display
    return torch.einsum("rc,chw->rhw", torch.tensor(matrix).to(light), retina)


def optical_transfer(cycles_per_degree: torch.Tensor) -> torch.Tensor:
    """Modulation transfer of the eye's optics, whose tail is glare (Mantiuk et al. 2011, eq. 2)."""
    parts = [a * torch.exp(-b * cycles_per_degree) for a, b in OPTICS]
    return torch.stack(parts).sum(dim=0)


def achromatic_response(signals: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """Of cones and rods together, in just noticeable differences: 3×H×W → H×W, float32."""
    cones, rods = (table.to(signals) for table in _response_tables(calibration))
    response = torch.zeros_like(signals[0])
    for table, level in zip((cones, cones, rods), signals.log10(), strict=True):
        response += interpolated(table, *LUMINANCE_RANGE, level)
    return response.float()


@lru_cache
def _response_tables(calibration: Calibration) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses of a cone and of rods by log10 luminance, in JND: the integral of sensitivity over it."""
    level = np.linspace(*LUMINANCE_RANGE, TABLE_SIZE)
    luminance = 10**level
    rods = _rod_sensitivity(luminance, calibration)
    joint, edge, slope, low = calibration.joint
    both = joint * ((edge / luminance) ** slope + 1) ** -low
    # L and M cones share what is not the rods', each at half the luminance.
    doubled = np.minimum(2 * luminance, luminance[-1])
    cones = 0.5 * np.interp(doubled, luminance, np.maximum(both - rods, 1e-3))
    responses = (_integral(level, calibration.peak * sensitivity) for sensitivity in (cones, rods))
    return next(responses), next(responses)


def _rod_sensitivity(luminance: np.ndarray, calibration: Calibration) -> np.ndarray:
    peak, low, low_power, high, high_power, sensitivity = calibration.rods
    distance = np.log10(luminance / peak)
    fall = np.where(distance > 0, np.abs(distance) ** high_power / high, np.abs(distance) ** low_power / low)
    rods: np.ndarray = 10**sensitivity * np.exp(-fall)
    return rods


def _integral(level: np.ndarray, sensitivity: np.ndarray) -> torch.Tensor:
    """∫ S/L dL = ∫ S·ln 10 d(log10 L), trapezoidal, from the table's first luminance."""
    steps = 0.5 * (sensitivity[1:] + sensitivity[:-1]) * np.diff(level) * np.log(10)
    return torch.from_numpy(np.concatenate([[0.0], np.cumsum(steps)]))
