"""What is clipped, and how the two halves of a picture are put together: eq. 1 and figure 2 of Santos et al. 2020.

Pure functions on numpy arrays or torch tensors of any shape; the kind that goes in comes out.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Transfer = Literal["gamma", "srgb", "bt709", "pq", "hlg"]

# Of signals that are HDR already: linear light that is 1.0 here, as ITU-R BT.2408-7, table 1, sets diffuse white.
_PQ_WHITE = 203 / 10_000  # cd/m² of the 10,000 that PQ reaches
_HLG_WHITE = (math.exp((0.75 - 0.55991073) / 0.17883277) + 0.28466892) / 12  # scene light of 75 % HLG


@dataclass(frozen=True)
class Encoding:
    """How a source's display-encoded values mean light, see `linearise`. gamma: of the transfer "gamma" alone."""

    transfer: Transfer = "gamma"
    gamma: float = 2.0


def exposure_mask(ldr: Array, threshold: float = 0.96) -> Array:
    """β(x) of figure 2: how well exposed each value is.

    ldr: display-encoded values in [0, 1], any shape, judged channel by channel.
    threshold: α. Returns 1 up to α, falling linearly to 0 at 1.0; same shape, type and dtype.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), not {threshold}")
    return ((1.0 - ldr) / (1.0 - threshold)).clip(0.0, 1.0)


def linearise(ldr: Array, transfer: Transfer = "gamma", gamma: float = 2.0) -> Array:
    """Display-encoded [0, 1] to linear [0, 1].

    "gamma": T^γ, eq. 1. "srgb": IEC 61966-2-1. "bt709": the inverse of ITU-R BT.709-6, item 1.2.

    "pq" and "hlg" are signals of HDR, whose diffuse white becomes 1.0 and whose highlights reach 49.3 and 3.77:
    ITU-R BT.2100-3, table 4 (EOTF: light of the display), and table 5 (inverse OETF: light of the scene, without the
    OOTF of a display).
    """
    if transfer == "gamma":
        return ldr**gamma
    if transfer == "srgb":
        return _where(ldr <= 0.04045, ldr / 12.92, ((ldr + 0.055) / 1.055) ** 2.4)
    if transfer == "bt709":
        return _where(ldr < 0.081, ldr / 4.5, ((ldr + 0.099) / 1.099) ** (1 / 0.45))
    if transfer == "pq":
        root = ldr ** (32 / 2523)  # 1 / m2
        return ((root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305) / _PQ_WHITE
    if transfer == "hlg":
        high = (_exp((ldr - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return _where(ldr <= 0.5, ldr**2 / 3, high) / _HLG_WHITE
    raise ValueError(f"transfer must be gamma, srgb, bt709, pq or hlg, not {transfer!r}")


def encode(linear: Array, transfer: Transfer = "gamma", gamma: float = 2.0) -> Array:
    """The inverse of `linearise`: linear values ≥ 0 to display-encoded; values above 1 go on along the curve."""
    if transfer == "gamma":
        return linear ** (1 / gamma)
    if transfer == "srgb":
        return _where(linear <= 0.04045 / 12.92, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    if transfer == "bt709":
        return _where(linear < 0.018, linear * 4.5, 1.099 * linear**0.45 - 0.099)
    if transfer == "pq":
        power = (linear * _PQ_WHITE) ** (1305 / 8192)  # m1
        return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    if transfer == "hlg":
        light = linear * _HLG_WHITE
        high = 0.17883277 * _log((12 * light - 0.28466892).clip(1e-6)) + 0.55991073
        return _where(light <= 1 / 12, (3 * light) ** 0.5, high)
    raise ValueError(f"transfer must be gamma, srgb, bt709, pq or hlg, not {transfer!r}")


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
    seen = linearise(ldr, transfer, gamma)
    made = _expm1(log_hdr)
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
