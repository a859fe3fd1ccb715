"""Resampling, blurring and table look-up, as HDR-VDP and VSI need them: on tensors …×H×W, any device."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

Kernel = Callable[[torch.Tensor], torch.Tensor]
SMALLEST_FFT_BLUR = 4.3  # σ in pixels, from which the metric blurs in the Fourier domain, whose edges differ


def frequencies(height: int, width: int, samples_per_degree: float, like: torch.Tensor) -> torch.Tensor:
    """Cycles a degree of each coefficient of `rfft2` of a picture height×width."""
    step = 1.0 / samples_per_degree
    vertical = torch.fft.fftfreq(height, step, dtype=like.dtype, device=like.device)
    horizontal = torch.fft.rfftfreq(width, step, dtype=like.dtype, device=like.device)
    return torch.hypot(vertical[:, None], horizontal)


def filtered(
    picture: torch.Tensor,
    pixels_per_degree: float,
    transfer: Callable[[torch.Tensor], torch.Tensor],
    surround: float | None,
) -> torch.Tensor:
    """`picture` with each frequency, in cycles a degree, times `transfer` of it.

    surround: value outside the picture, as far as its own size; None mirrors the picture.
    """
    height, width = picture.shape[-2:]
    if surround is None:
        padded = torch.cat([picture, picture.flip(-1)], dim=-1)
        padded = torch.cat([padded, padded.flip(-2)], dim=-2)
    else:
        padded = F.pad(picture, (0, width, 0, height), value=surround)
    return _in_fourier_domain(padded, picture, pixels_per_degree, transfer)


def gaussian_blur(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """H×W, blurred by σ pixels.

    A wide kernel sees the picture continued to twice its size by its last row and column, and that repeated; so
    the first row meets the last. It is how the metric was calibrated.
    """
    if sigma < SMALLEST_FFT_BLUR:
        return _blurred_in_space(picture, sigma)
    height, width = picture.shape
    padded = F.pad(picture[None, None], (0, width, 0, height), mode="replicate")[0, 0]
    return _in_fourier_domain(padded, picture, 2 * math.pi, lambda radians: torch.exp(-0.5 * (radians * sigma) ** 2))


def _in_fourier_domain(
    padded: torch.Tensor, picture: torch.Tensor, samples: float, transfer: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    height, width = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * transfer(frequencies(height, width, samples, padded))
    filtered: torch.Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return filtered[..., : picture.shape[-2], : picture.shape[-1]]


def _blurred_in_space(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """The kernel has an odd side of about 6σ; edge pixels are repeated."""
    radius = math.floor(sigma * 6 + 0.5) // 2
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=picture.device).to(picture) / sigma) ** 2)
    taps = taps / taps.sum()
    padded = F.pad(picture[None, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[None, None, None]), taps[None, None, :, None])[0, 0]


def resized(picture: torch.Tensor, size: tuple[int, int], kernel: Literal["linear", "cubic"] = "cubic") -> torch.Tensor:
    """…×H×W → …×size, mirrored at the edges. The kernel is widened where it shrinks; cubic: Keys 1981, a = −½."""
    for axis, wanted in zip((-1, -2), reversed(size), strict=True):
        picture = _resized_along(picture, axis, wanted, *KERNELS[kernel])
    return picture


def _resized_along(picture: torch.Tensor, axis: int, wanted: int, kernel: Kernel, radius: int) -> torch.Tensor:
    given = picture.shape[axis]
    if given == wanted:
        return picture
    scale = wanted / given
    narrow = min(scale, 1.0)
    centre = (torch.arange(wanted, dtype=torch.float64, device=picture.device) + 0.5) / scale - 0.5
    reach = math.ceil(radius / narrow)
    first = centre.floor().long()
    shape = [wanted if axis % picture.ndim == dim else 1 for dim in range(picture.ndim)]
    result: torch.Tensor | None = None
    for offset in range(1 - reach, reach + 1):
        source = first + offset
        weight = (narrow * kernel((source - centre) * narrow)).to(picture.dtype).view(shape)
        tap = picture.index_select(axis, _mirrored(source, given)) * weight
        result = tap if result is None else result.add_(tap)
    assert result is not None
    return result


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


def _linear(distance: torch.Tensor) -> torch.Tensor:
    return (1 - distance.abs()).clamp(min=0)


KERNELS: dict[str, tuple[Kernel, int]] = {"linear": (_linear, 1), "cubic": (_cubic, 2)}  # and their radius


def _mirrored(index: torch.Tensor, length: int) -> torch.Tensor:
    """Indices outside 0…length − 1, reflected at the edges (the edge pixel counts twice)."""
    wrapped = index.remainder(2 * length)
    return torch.minimum(wrapped, 2 * length - 1 - wrapped)


def interpolated(table: torch.Tensor, first: float, last: float, at: torch.Tensor) -> torch.Tensor:
    """Linear look-up in values that stand at equal steps from `first` to `last`; clamped to that range."""
    position = (at.clamp(first, last) - first) * ((len(table) - 1) / (last - first))
    below = position.floor().clamp(max=len(table) - 2)
    return torch.lerp(table[below.long()], table[below.long() + 1], position - below)
