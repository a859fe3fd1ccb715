"""What is clipped, and how the two halves of a picture are put together: eq. 1 and figure 2 of Santos et al. 2020.

Pure functions on numpy arrays or torch tensors of any shape; the kind that goes in comes out.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from model.codes import bands

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Transfer = Literal["gamma", "srgb", "bt709", "bt1886", "linear", "prophoto", "smpte240m", "pq", "hlg"]

_CURVES = {
    "srgb": (1.055, 2.4, 12.92, 0.04045),  # IEC 61966-2-1
    "bt709": (1.099, 1 / 0.45, 4.5, 0.081),  # ITU-R BT.709-6, item 1.2; also BT.601 and BT.2020 of 10 bits
    "smpte240m": (1.1115, 1 / 0.45, 4.0, 0.0912),  # SMPTE 240M
    "prophoto": (1.0, 1.8, 16.0, 1 / 32),  # ROMM RGB, ISO 22028-2
}
"""Curves with a linear toe: α, γ, the toe's slope, and the code where it ends. V = α·L^(1/γ) − (α − 1) above it."""

# Of signals that are HDR already: linear light that is 1.0 here, as ITU-R BT.2408-7, table 1, sets diffuse white.
_PQ_WHITE = 203 / 10_000  # cd/m² of the 10,000 that PQ reaches
HLG_WHITE = (math.exp((0.75 - 0.55991073) / 0.17883277) + 0.28466892) / 12  # scene light of 75 % HLG


@dataclass(frozen=True)
class Encoding:
    """How a source's display-encoded values mean light, see `linearise`. gamma: of the transfer "gamma" alone."""

    transfer: Transfer = "gamma"
    gamma: float = 2.0

    def __str__(self) -> str:
        return f"gamma{self.gamma:.5g}" if self.transfer == "gamma" else self.transfer


def exposure_mask(ldr: Array, threshold: float = 0.96) -> Array:
    """β(x) of figure 2: how well exposed each value is.

    ldr: display-encoded values in [0, 1], any shape, judged channel by channel.
    threshold: α. Returns 1 up to α, falling linearly to 0 at 1.0; same shape, type and dtype.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), not {threshold}")
    return ((1.0 - ldr) / (1.0 - threshold)).clip(0.0, 1.0)


def clipped_pixels(ldr: torch.Tensor, threshold: float = 0.96) -> torch.Tensor:
    """Where a channel's mask is below 1: bool H×W. ldr: float32 H×W×3."""
    highest = _highest_exposed(threshold)
    clipped = torch.empty(ldr.shape[:2], dtype=torch.bool, device=ldr.device)
    for rows in bands(ldr):
        red, green, blue = (ldr[rows] > highest).unbind(-1)
        torch.logical_or(red, green, out=clipped[rows]).logical_or_(blue)
    return clipped


@functools.cache
def _highest_exposed(threshold: float) -> float:
    """The largest float32 whose mask is 1."""
    near = np.float32(threshold) + np.arange(-8, 9, dtype=np.float32) * np.spacing(np.float32(max(threshold, 1e-3)))
    return float(near[exposure_mask(near, threshold) == 1].max())


def linearise(ldr: Array, transfer: Transfer = "gamma", gamma: float = 2.0) -> Array:
    """Display-encoded [0, 1] to linear [0, 1].

    "gamma": T^γ, eq. 1. "bt1886": the display of ITU-R BT.1886 with a black of 0, T^2.4. "linear": as they are.
    "pq" and "hlg" are signals of HDR, whose diffuse white becomes 1.0 and whose highlights reach 49.3 and 3.77:
    ITU-R BT.2100-3, table 4 (EOTF: light of the display), and table 5 (inverse OETF: light of the scene, without the
    OOTF of a display). The others: the inverse of the curves in `_CURVES`, which are the cameras' and the files'.
    """
    if (power := _power(transfer, gamma)) is not None:
        return ldr**power
    if transfer == "pq":
        root = ldr ** (32 / 2523)  # 1 / m2
        return ((root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305) / _PQ_WHITE
    if transfer == "hlg":
        high = (_exp((ldr - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return _where(ldr <= 0.5, ldr**2 / 3, high) / HLG_WHITE
    alpha, power, slope, end = _CURVES[transfer]
    return _where(ldr <= end, ldr / slope, ((ldr + (alpha - 1)) / alpha) ** power)


def encode(linear: Array, transfer: Transfer = "gamma", gamma: float = 2.0) -> Array:
    """The inverse of `linearise`: linear values ≥ 0 to display-encoded; values above 1 go on along the curve."""
    if (power := _power(transfer, gamma)) is not None:
        return linear ** (1 / power)
    if transfer == "pq":
        root = (linear * _PQ_WHITE) ** (1305 / 8192)  # m1
        return ((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
    if transfer == "hlg":
        light = linear * HLG_WHITE
        high = 0.17883277 * _log((12 * light - 0.28466892).clip(1e-6)) + 0.55991073
        return _where(light <= 1 / 12, (3 * light) ** 0.5, high)
    alpha, power, slope, end = _CURVES[transfer]
    return _where(linear <= end / slope, linear * slope, alpha * linear ** (1 / power) - (alpha - 1))


def _power(transfer: Transfer, gamma: float) -> float | None:
    """Of a transfer that is one power; None where it has another shape. Raises ValueError for an unknown one."""
    powers = {"gamma": gamma, "bt1886": 2.4, "linear": 1.0}
    others = [*_CURVES, "pq", "hlg"]
    if transfer not in powers and transfer not in others:
        raise ValueError(f"transfer must be one of {', '.join([*powers, *others])}, not {transfer!r}")
    return powers.get(transfer)


def compose_hdr(
    ldr: Array,
    mask: Array,
    log_hdr: Array,
    gamma: float = 2.0,
    *,
    transfer: Transfer = "gamma",
    floor: bool = False,
) -> Array:
    """Eq. 1: H = M·T^γ + (1 − M)·(exp(Y) − 1). LDR white is 1.0 in H.

    ldr T, mask M, log_hdr Y: three arrays of one shape. floor: take max(exp(Y) − 1, T^γ) in the second term,
    since the truth in a clipped channel is never below the clip level.
    """
    return compose(linearise(ldr, transfer, gamma), mask, _expm1(log_hdr), floor)


def compose(seen: Array, mask: Array, made: Array, floor: bool) -> Array:
    """Eq. 1 in linear light: what the camera has seen, where the mask is 1, and what was made up elsewhere."""
    if floor:
        made = _maximum(made, seen)
    return mask * seen + (1 - mask) * made


def _where(condition: Any, yes: Array, no: Array) -> Array:
    return torch.where(condition, yes, no) if isinstance(yes, torch.Tensor) else np.where(condition, yes, no)


def _exp(x: Array) -> Array:
    return torch.exp(x) if isinstance(x, torch.Tensor) else np.exp(x)


def _log(x: Array) -> Array:
    return torch.log(x) if isinstance(x, torch.Tensor) else np.log(x)


def _expm1(x: Array) -> Array:
    return torch.expm1(x) if isinstance(x, torch.Tensor) else np.expm1(x)


def _maximum(a: Array, b: Array) -> Array:
    return torch.maximum(a, b) if isinstance(a, torch.Tensor) else np.maximum(a, b)
