"""How much texture a patch has where it is clipped: algorithm 1 of the paper (section 3.4), as batched tensor code."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from model.exposure import exposure_mask
from train.camera import CameraConfig, camera_curve
from train.views import upload

SIGMA_COLOUR, SIGMA_SPACE = 100.0, 10.0  # of algorithm 1's bilateral filter
RADIUS = round(1.5 * SIGMA_SPACE)  # of its window, a disc, as OpenCV has it
GREY = (0.299, 0.587, 0.114)  # as OpenCV has it
TEXTURED = 0.85
"""The paper's threshold. It holds for its own pictures, at their resolution and scale; it is a setting."""


def texture_scores(hdr: Tensor, mask: Tensor) -> Tensor:
    """Algorithm 1, (N,): how much texture each patch has where it is clipped.

    hdr: float32 (N, 3, H, W), linear, clip level 1.0; mask: the same shape, 1 = well exposed. I = grey of H,
    L = log(I + 1), B = bilateral(L), D = L − B; the mean of (|Sobel x of D| + |Sobel y of D|) ⊙ (1 − M), M averaged
    over the channels. Taken literally: natural logarithm, 3×3 Sobel kernels without a factor, the mean over the whole
    patch.
    """
    red, green, blue = hdr.unbind(1)
    log = (GREY[0] * red + GREY[1] * green + GREY[2] * blue).log1p_()
    detail = _reflected(log - bilateral(log), 1)
    down = detail[:, :-2] + 2 * detail[:, 1:-1] + detail[:, 2:]
    across = detail[..., :-2] + 2 * detail[..., 1:-1] + detail[..., 2:]
    gradient = (down[..., 2:] - down[..., :-2]).abs_().add_((across[:, 2:] - across[:, :-2]).abs_())
    return gradient.mul_(1 - mask.mean(1)).mean((1, 2))


def bilateral(log: Tensor) -> Tensor:
    """cv2.bilateralFilter(log, -1, σ_c, σ_s) of each picture, to about 1e-5. float32 (N, H, W), L = log(I+1).

    A neighbour q of p has the weight G·exp(−(L_p − L_q)²/2σ_c²), G a Gaussian cut off at a radius of 1.5 σ_s. What
    of it depends on p alone cancels out; e_q = exp(−L_q²/2σ_c²) depends on q alone; and exp(y), y = L_p·L_q/σ_c², is
    1 + y + y²/2 to under 1e-6, since σ_c is far above any range of L. So the sums over neighbours are those of
    e_q·L_q^k, k from 0 to 3, convolved with G, which goes through Fourier space, two real pictures to a complex one.
    """
    middle = (log.amin((1, 2), keepdim=True) + log.amax((1, 2), keepdim=True)) / 2
    values = log - middle
    height, width = log.shape[1:]
    size = cv2.getOptimalDFTSize(height + 2 * RADIUS), cv2.getOptimalDFTSize(width + 2 * RADIUS)
    around = _reflected(values, RADIUS, size)
    own = torch.exp(around * around * (-0.5 / SIGMA_COLOUR**2))
    first = torch.complex(own, own * around)  # two real pictures in a complex one
    spectrum = torch.fft.fft2(torch.stack((first, first * (around * around)), 1))
    torch.view_as_real(spectrum).mul_(_gaussian_spectrum(*size, log.device))
    smooth = torch.fft.ifft2(spectrum)[..., RADIUS : RADIUS + height, RADIUS : RADIUS + width]
    sums = torch.view_as_real(smooth).permute(1, 4, 0, 2, 3).flatten(0, 1)
    slope = values * (1 / SIGMA_COLOUR**2)
    above = sums[1] + slope * (sums[2] + slope * sums[3] / 2)
    below = sums[0] + slope * (sums[1] + slope * sums[2] / 2)
    return above / below + middle


def _reflected(pictures: Tensor, margin: int, size: tuple[int, int] | None = None) -> Tensor:
    """(N, H, W) with a margin that mirrors it about its outermost pixels, again and again where it is small.

    size: the height and width to come to, with anything after the margin.
    """
    for axis in (1, 2):
        last = pictures.shape[axis] - 1
        place = np.abs(np.arange(-margin, last + margin + 1)) % max(2 * last, 1)
        place = np.where(place > last, 2 * last - place, place)
        place = np.pad(place, (0, size[axis - 1] - len(place) if size else 0))
        pictures = pictures.index_select(axis, upload(place, pictures.device))
    return pictures


@lru_cache(maxsize=8)
def _gaussian_spectrum(height: int, width: int, device: torch.device) -> Tensor:
    """The spectrum of the filter's Gaussian around (0, 0), real since it is even: float32 (height, width, 1)."""
    y, x = np.ogrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    kernel = np.exp(-(x * x + y * y) / (2 * SIGMA_SPACE**2)) * (x * x + y * y <= RADIUS**2)
    whole = np.zeros((height, width))
    whole[: 2 * RADIUS + 1, : 2 * RADIUS + 1] = kernel / kernel.sum()
    whole = np.roll(whole, (-RADIUS, -RADIUS), (0, 1))
    return torch.from_numpy(np.fft.fft2(whole).real.astype(np.float32))[..., None].to(device)


def rough_mask(hdr: Tensor, config: CameraConfig, threshold: float) -> Tensor:
    """The mask of exposed patches by the mean camera without noise, to score them before a picture is taken."""
    return exposure_mask(camera_curve(hdr.clamp(0, 1), config.n_mean, config.sigma_mean), threshold)


def has_saturation(mask: Tensor) -> Tensor:
    """Whether anything of each patch is clipped at all, (N,); a patch without clipping teaches nothing."""
    return mask.flatten(1).amin(1) < 1
