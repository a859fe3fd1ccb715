"""Contrast sensitivity and masking, as both versions have them."""

import numpy as np
import torch
from torch.nn import functional as F

from ldr2hdr_cli.evaluation.hdrvdp.calibration import VISIBLE_DIFFERENCE, Calibration
from ldr2hdr_cli.evaluation.hdrvdp.eye import LUMINANCE_RANGE
from ldr2hdr_cli.evaluation.sampling import interpolated, resized

TABLE_SIZE = 256  # luminances for which contrast sensitivity is tabulated


def csf_parameters(level: np.ndarray, calibration: Calibration) -> list[np.ndarray]:
    """The four parameters of contrast sensitivity at log10 luminances."""
    known = np.log10(calibration.csf_luminance)
    return [np.interp(level, known, column) for column in np.transpose(calibration.csf)]


def sensitivity_at(
    level: torch.Tensor, cycles_per_degree: float, calibration: Calibration, gain: float = 1.0
) -> torch.Tensor:
    """Contrast sensitivity times `gain` to one frequency, at a map of log10 luminances: float32, H×W."""
    levels = np.linspace(*LUMINANCE_RANGE, TABLE_SIZE)
    table = gain * csf(torch.tensor(cycles_per_degree).double(), csf_parameters(levels, calibration))
    return interpolated(table.to(level), *LUMINANCE_RANGE, level)


def csf(cycles_per_degree: torch.Tensor, parameters: list[np.ndarray]) -> torch.Tensor:
    """Contrast sensitivity (Mantiuk et al. 2011, eq. 8); float64, of the shape that both broadcast to."""
    p1, p2, p3, p4 = (torch.as_tensor(p).to(cycles_per_degree) for p in parameters)
    low = (1 - torch.exp(-((cycles_per_degree / 7) ** 2))) ** p3
    return p4 * torch.sqrt(low / (1 + (p1 * cycles_per_degree) ** p2))


def differing_pixels(test: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """1 where any channel of channels×H×W differs visibly, else 0: H×W, float32."""
    return ((test - reference).abs() / reference > VISIBLE_DIFFERENCE).any(dim=0).float()


def shared_signal(test: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """What both bands hold, averaged over 3×3 pixels (0 outside): it masks their difference. orientations×H×W."""
    return F.avg_pool2d(torch.minimum(test.abs(), reference.abs()), 3, stride=1, padding=1)


def neighbours_signal(masks: list[torch.Tensor], number: int) -> torch.Tensor:
    """`shared_signal` of the bands beside a band, at its size, for each of its orientations.

    The lowest band is masked by its neighbour, and masks none.
    """
    own = masks[number]
    beside = masks[max(number - 1, 0) : number] + masks[number + 1 : min(number + 2, len(masks) - 1)]
    total = torch.zeros_like(own)
    for mask in beside:
        total += resized(mask[: len(own)], (own.shape[1], own.shape[2])).clamp(min=0)
    return total


def perceived(
    difference: torch.Tensor, sensitivity: torch.Tensor, masking: torch.Tensor, calibration: Calibration
) -> torch.Tensor:
    """Size of the difference that is seen (Mantiuk et al. 2011, eq. 11)."""
    power = calibration.excitation
    return difference.abs() ** power / torch.sqrt(sensitivity ** (-2 * power) + masking**2)
