"""VSI, a similarity of pictures weighted by what draws the eye.

Zhang, Shen and Li 2014, "VSI: a visual saliency-induced index for perceptual image quality assessment" (IEEE TIP
23(10)); its saliency is SDSP of Zhang, Gu and Li 2013, "SDSP: a novel saliency detection method by combining simple
priors" (ICIP). Written from the papers, with their constants, for values of 0 to 255 and, of brighter pictures,
more.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ldr2hdr_cli.evaluation.sampling import frequencies, resized

SALIENCY, GRADIENT, CHROMA = 1.27, 386.0, 130.0  # what keeps each similarity from 0/0
GRADIENT_POWER, CHROMA_POWER = 0.40, 0.02
SIDE = 256  # of the picture that saliency is found in, and about that which is compared

OPPONENT = ((0.06, 0.63, 0.27), (0.30, 0.04, -0.35), (0.34, -0.60, 0.17))  # lightness and two of chroma
FREQUENCY, BANDWIDTH = 0.021, 1.34  # of the log-Gabor filter: cycles a pixel, and σ
CENTRE, WARMTH = 145.0, 0.001  # σ of the bias towards the centre, in pixels, and towards warm colours

RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.9642, 1.0, 0.8251)  # D50, which the method takes for its L*a*b*


def vsi(test: np.ndarray, reference: np.ndarray) -> float:
    """1 for equal pictures, less for others. H×W×3, encoded; NaN where a picture has one."""
    if np.isnan(test).any() or np.isnan(reference).any():
        return math.nan
    maps = [_maps(torch.from_numpy(np.array(p, dtype=np.float64)).permute(2, 0, 1)) for p in (test, reference)]
    saliency, gradient, first, second = (
        _similarity(mine, wanted, constant)
        for mine, wanted, constant in zip(*maps, (SALIENCY, GRADIENT, CHROMA, CHROMA), strict=True)
    )
    similarity = gradient**GRADIENT_POWER * saliency * _power(first * second, CHROMA_POWER)
    weight = torch.maximum(maps[0][0], maps[1][0])
    if not weight.any():  # nothing draws the eye in a picture of one colour
        weight = torch.ones_like(weight)
    return float((similarity * weight).sum() / weight.sum())


def _maps(picture: torch.Tensor) -> torch.Tensor:
    """Saliency, gradient and two chroma maps of 3×H×W, about SIDE pixels on the shorter side."""
    opponent = torch.einsum("oc,chw->ohw", torch.tensor(OPPONENT).to(picture), picture)
    lightness, first, second, saliency = _reduced(torch.cat([opponent, _saliency(picture)[None]]))
    return torch.stack([saliency, _gradient(lightness), first, second])


def _similarity(mine: torch.Tensor, wanted: torch.Tensor, constant: float) -> torch.Tensor:
    return (2 * mine * wanted + constant) / (mine**2 + wanted**2 + constant)


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """Real part of the power, also of negative numbers, as of opposite colours."""
    return base.abs() ** exponent * torch.where(base < 0, math.cos(math.pi * exponent), 1.0)


def _reduced(maps: torch.Tensor) -> torch.Tensor:
    """Means over squares, with 0 outside the picture."""
    step = max(1, math.floor(min(maps.shape[1:]) / SIDE + 0.5))
    before, after = step - 1 - step // 2, step // 2
    return F.avg_pool2d(F.pad(maps, (before, after, before, after)), step, step)


def _gradient(lightness: torch.Tensor) -> torch.Tensor:
    """Scharr; 0 outside the picture."""
    across = torch.tensor([[3.0, 0, -3], [10, 0, -10], [3, 0, -3]]).to(lightness) / 16
    kernels = torch.stack([across, across.T])[:, None]
    return F.conv2d(lightness[None, None], kernels, padding=1)[0].square().sum(dim=0).sqrt()


def _saliency(picture: torch.Tensor) -> torch.Tensor:
    """3×H×W → H×W, 0 to 1: what stands out, lies near the centre and is of warm colour."""
    lab = _lab(resized(picture, (SIDE, SIDE), "linear"))
    spectrum = torch.fft.rfft2(lab) * _log_gabor(picture)
    stands_out = torch.fft.irfft2(spectrum, s=(SIDE, SIDE)).square().sum(dim=0).sqrt()
    distance = torch.arange(1, SIDE + 1).to(picture) - SIDE / 2
    central = torch.exp(-(distance[:, None] ** 2 + distance**2) / CENTRE**2)
    warm = 1 - torch.exp(-(_from_0_to_1(lab[1]) ** 2 + _from_0_to_1(lab[2]) ** 2) / WARMTH**2)
    return _from_0_to_1(resized(stands_out * central * warm, (picture.shape[1], picture.shape[2]), "linear"))


def _log_gabor(like: torch.Tensor) -> torch.Tensor:
    cycles = frequencies(SIDE, SIDE, 1.0, like)
    gain = torch.exp(-((cycles / FREQUENCY).log() ** 2) / (2 * BANDWIDTH**2))
    return torch.where((cycles > 0) & (cycles <= 0.5), gain, 0.0)


def _from_0_to_1(values: torch.Tensor) -> torch.Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def _lab(encoded: torch.Tensor) -> torch.Tensor:
    """CIE L*a*b* of sRGB, 0 to 255."""
    values = encoded / 255
    linear = torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("xc,chw->xhw", torch.tensor(RGB_TO_XYZ).to(linear), linear)
    relative = xyz / torch.tensor(WHITE).to(xyz)[:, None, None]
    root = torch.where(relative > 0.008856, relative.clamp(min=0) ** (1 / 3), (903.3 * relative + 16) / 116)
    x, y, z = root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
