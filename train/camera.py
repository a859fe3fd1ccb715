"""The virtual camera: HDR patches → what a camera makes of them, and the truth at that exposure; batched tensor code.

After Eilertsen et al., "HDR image reconstruction from a single exposure using deep CNNs", ACM TOG 36(6), 2017,
section 5.1. The truth is eq. 1's H: on the scale on which T² is right beside what the camera clipped.

Patches are (N, 3, H, W) on any device. What is drawn for them are arrays of the host, (N,), so that no decision
waits for the device.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.constants import LOG_RANGE, LUMINANCE
from model.errors import Ldr2hdrError
from train.jpeg import jpeg
from train.views import upload

Values = TypeVar("Values", np.ndarray, Tensor)

BRIGHTEST = math.exp(LOG_RANGE[1]) - 1
"""Truths are clamped to this, the top of the network's log range."""

MIDTONES = (0.5, 0.9)
MILD_QUANTILE = 0.995  # of the brightest channel, which mild over-exposure is counted from
SHARPENED = 0.7  # of the scenes
BLACK = 1e-5  # linear, beside a middle grey of 0.18: as dark as sharpening looks

_LUMA = np.array(LUMINANCE)


@dataclass(frozen=True)
class CameraConfig:
    """Every number of the camera.

    clipped_share: least and greatest share of the pixels that clip, drawn log-uniformly (Eilertsen: 5 to 15 %).
    mild_probability: how often the picture is instead over by `mild_stops` against its 99.5th percentile, which
        over-exposes scenes without a light as people do.
    n_mean … sigma_std: the curve f(x) = (1+σ)·xⁿ/(xⁿ+σ), n and σ drawn from normal distributions.
    midtone_scale: 1 for a truth on the scale of the midtones, see `midtone_scale`; 0 for one with its clip level at 1.
    hue_std: degrees; saturation_std: factor. noise_max: largest standard deviation of the noise in display code.
    jpeg_probability, jpeg_low, jpeg_high: how often the picture goes through JPEG, at which quality.
    fov_low, fov_high: horizontal field of view of views cut from panoramas, degrees. roll_max, pitch_max: degrees.
        Wide views of small panoramas are the sharp ones: training on up to 140° instead of 100° made photographs
        better and views no worse.
    sharpen: seven scenes in ten are sharpened by up to this, in the logarithm; 0: none. A view of a panorama of
        1,024 columns is enlarged, so softer than photographs are.
    scale_low: flat pictures are cut from between this and all of their shorter side.
    """

    share_low: float = 0.05
    share_high: float = 0.15
    mild_probability: float = 0.0
    mild_low: float = 0.2
    mild_high: float = 3.0
    n_mean: float = 0.9
    n_std: float = 0.1
    sigma_mean: float = 0.6
    sigma_std: float = 0.1
    midtone_scale: int = 1
    hue_std: float = 7.0
    saturation_std: float = 0.1
    noise_max: float = 0.01
    jpeg_probability: float = 0.5
    jpeg_low: int = 60
    jpeg_high: int = 98
    fov_low: float = 50.0
    fov_high: float = 140.0
    pitch_max: float = 60.0
    roll_max: float = 15.0
    scale_low: float = 0.5
    sharpen: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1e-3 if name in ("n_mean", "sigma_mean") else -20.0 if name.startswith("mild") else 0.0
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least {least:g}, not {value}")
        for low, high, name, least, most in (
            (self.share_low, self.share_high, "share", 1e-6, 1.0),
            (self.mild_low, self.mild_high, "mild", -20.0, 20.0),
            (self.jpeg_low, self.jpeg_high, "jpeg", 1, 100),
            (self.fov_low, self.fov_high, "fov", 1.0, 170.0),
        ):
            if not least <= low <= high <= most:
                raise ValueError(f"{name}_low and {name}_high must be in order, {least} to {most}, not {low}, {high}")
        for name in ("mild_probability", "jpeg_probability", "scale_low", "midtone_scale"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1, not {getattr(self, name)}")


def camera_config(values: Mapping[str, Any]) -> CameraConfig:
    """The camera of some settings. Raises Ldr2hdrError for unknown names and values out of bounds."""
    known = {entry.name: entry for entry in fields(CameraConfig)}
    if unknown := [name for name in values if name not in known]:
        raise Ldr2hdrError(f"The camera has no setting {unknown[0]}; it has {', '.join(known)}.")
    try:
        typed: dict[str, Any] = {n: int(v) if known[n].type in (int, "int") else float(v) for n, v in values.items()}
        return CameraConfig(**typed)
    except (TypeError, ValueError, OverflowError) as error:
        raise Ldr2hdrError(f"The camera's settings do not fit: {error}.") from None


def camera_curve(x: Values, n: Any, sigma: Any) -> Values:
    """f(x) = (1+σ)·xⁿ/(xⁿ+σ), [0, 1] → [0, 1]: linear light to display code. Eilertsen et al. 2017, section 5.1.

    x: an array or a tensor; n, sigma: numbers, or of the same kind.
    """
    # A tensor's power takes twice as long as its logarithm and exponential.
    power = x.log().mul_(n).exp_() if isinstance(x, Tensor) else x**n
    curved: Values = power * (1 + sigma) / (power + sigma)
    return curved


def inverse_camera_curve(y: np.ndarray, n: Any, sigma: Any) -> np.ndarray:
    """The x for which camera_curve(x, n, sigma) is y, both in [0, 1]."""
    return np.power(sigma * y / (1 + sigma - y), 1 / n)


def midtone_scale(n: Any, sigma: Any) -> np.ndarray:
    """The factors under which the truth agrees with T², eq. 1, in the midtones: display codes of 0.5 to 0.9.

    A camera's curve has a shoulder, so T² of a picture that it made is a seventh too bright in the midtones on
    average, relative to the clip level. Converting keeps the midtones, so highlights learnt relative to the clip
    level would be a seventh too dark beside them. n, sigma: numbers or arrays, as of `camera_curve`.
    """
    code = np.linspace(*MIDTONES, 41)
    linear = inverse_camera_curve(code, np.asarray(n)[..., None], np.asarray(sigma)[..., None])
    return np.exp(np.median(np.log(code**2 / linear), axis=-1))


# -- exposure ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exposure:
    """How each patch is exposed, (N,): so that `share` of its pixels clip, or, where `mild`, `stops` over."""

    mild: np.ndarray
    share: np.ndarray
    stops: np.ndarray

    @classmethod
    def drawn(cls, u: np.ndarray, config: CameraConfig) -> "Exposure":
        """u: (N, 3), uniform in [0, 1)."""
        low, high = math.log(config.share_low), math.log(config.share_high)
        stops = config.mild_low + u[:, 2] * (config.mild_high - config.mild_low)
        return cls(u[:, 0] < config.mild_probability, np.exp(low + u[:, 1] * (high - low)), stops)

    def factors(self, hdr: Tensor) -> Tensor:
        """(N,) of (N, 3, H, W), linear on any scale."""
        over = np.where(self.mild, 2.0**self.stops, 1.0)
        return expose(hdr, np.where(self.mild, 1 - MILD_QUANTILE, self.share)) * upload(over, hdr.device)


def expose(hdr: Tensor, share: float | np.ndarray) -> Tensor:
    """The factors, (N,), under which `share` of the pixels have a channel at 1.0 or above. hdr: (N, 3, H, W) linear."""
    share = np.broadcast_to(np.asarray(share, np.float64), len(hdr))
    return 1 / _quantiles(hdr.amax(1).flatten(1), 1 - share).clamp_min_(1e-6)


def _quantiles(values: Tensor, shares: np.ndarray) -> Tensor:
    """np.quantile of each row of (N, P): (N,), interpolated between neighbours in order."""
    place = shares * (values.shape[1] - 1)
    low = np.clip(np.floor(place), 0, max(values.shape[1] - 2, 0)).astype(np.int64)
    ends = np.stack([low, np.minimum(low + 1, values.shape[1] - 1)], 1)
    if values.device.type == "cpu":  # where a selection is thirty times as fast as sorting
        pairs = zip(values.numpy(), ends, strict=True)
        below, above = torch.from_numpy(np.stack([np.partition(row, pair)[pair] for row, pair in pairs])).unbind(1)
    else:
        below, above = values.sort(1).values.gather(1, upload(ends, values.device)).unbind(1)
    return torch.lerp(below, above, upload(place - low, values.device))


# -- taking the picture -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """What is drawn for each picture that is taken, (N,): everything but its exposure."""

    hue: np.ndarray  # degrees
    saturation: np.ndarray  # factor
    n: np.ndarray  # of the curve
    sigma: np.ndarray
    noise: np.ndarray  # standard deviation, display code
    key: np.ndarray  # int32, of the noise
    quality: np.ndarray  # of the JPEG; 0: none

    @classmethod
    def drawn(cls, u: np.ndarray, z: np.ndarray, config: CameraConfig) -> "Shot":
        """u: (N, 4), uniform in [0, 1); z: (N, 4), standard normal."""
        quality = np.floor(config.jpeg_low + u[:, 3] * (config.jpeg_high + 1 - config.jpeg_low))
        return cls(
            hue=z[:, 0] * config.hue_std,
            saturation=np.maximum(1 + z[:, 1] * config.saturation_std, 0),
            n=np.maximum(config.n_mean + z[:, 2] * config.n_std, 0.2),
            sigma=np.maximum(config.sigma_mean + z[:, 3] * config.sigma_std, 0.05),
            noise=u[:, 0] * config.noise_max,
            key=(u[:, 1] * 2**31).astype(np.int32),
            quality=np.where(u[:, 2] < config.jpeg_probability, quality, 0),
        )


def photograph(hdr: Tensor, factor: Tensor, shot: Shot, config: CameraConfig) -> tuple[Tensor, Tensor]:
    """Take a picture of each HDR patch.

    hdr: float32 (N, 3, H, W), linear, any scale. factor: (N,), of the exposure.
    Returns (ldr, truth), float32 (N, 3, H, W): what the camera gives, in 256 steps of [0, 1], and the exposed scene,
    on the scale that `config.midtone_scale` says.
    """
    n, sigma, noise = (upload(one, hdr.device).view(-1, 1, 1, 1) for one in (shot.n, shot.sigma, shot.noise))
    turn = upload(colour_matrix(shot.hue, shot.saturation), hdr.device) * factor.view(-1, 1, 1)
    truth = torch.bmm(turn, hdr.flatten(2)).view(hdr.shape).clamp_(0, BRIGHTEST)
    code = camera_curve(truth.clamp_max(1), n, sigma)
    code.add_(standard_noise(shot.key, hdr.shape, hdr.device).mul_(noise))
    # A clipped sensor stays clipped whatever its noise, so noise is added below the clip level only.
    code = torch.maximum(code, (truth >= 1).to(code)).clamp_(0, 1).mul_(255).round_()
    if config.midtone_scale:
        scale = upload(midtone_scale(shot.n, shot.sigma), hdr.device)
        truth.mul_(scale.view(-1, 1, 1, 1)).clamp_max_(BRIGHTEST)
    rows = np.flatnonzero(shot.quality)
    if len(rows) == len(code):
        code = jpeg(code, shot.quality)
    elif len(rows):
        place = upload(rows, hdr.device)
        code.index_copy_(0, place, jpeg(code.index_select(0, place), shot.quality[rows]))
    return code.div_(255), truth


def colour_matrix(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """(N, 3, 3), from the left: turns the hue by `hue` degrees about the grey axis and scales the saturation.

    Greys stay.
    """
    angle, saturation = np.radians(hue)[:, None, None], np.asarray(saturation)[:, None, None]
    third, side = (1 - np.cos(angle)) / 3, np.sin(angle) / math.sqrt(3)
    cycle = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = third + side * cycle + np.cos(angle) * np.eye(3)
    fade = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
    return fade @ turn


def standard_noise(key: np.ndarray, shape: torch.Size, device: torch.device) -> Tensor:
    """Standard normal values, float32 of `shape`, (N, …): those of a row follow from its key alone, on any device.

    Box and Muller's transform of a hash of the pixel's number (Wellons' lowbias32, two numbers of 16 bits each).
    """
    half = (math.prod(shape[1:]) + 1) // 2
    x = torch.arange(half, dtype=torch.int32, device=device)[None] ^ upload(key, device)[:, None]
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16) & 0xFFFF
    radius = ((x & 0xFFFF).float().add_(0.5).mul_(2**-16)).log_().mul_(-2).sqrt_()
    angle = ((x >> 16) & 0xFFFF).float().mul_(2 * math.pi / 2**16)
    both = torch.cat((angle.cos().mul_(radius), angle.sin_().mul_(radius)), 1)
    return both[:, : math.prod(shape[1:])].reshape(shape)


# -- before it is taken -----------------------------------------------------------------------------------------------


def drawn_sharpening(u: np.ndarray, config: CameraConfig) -> np.ndarray:
    """(N,) amounts for `sharpened` of (N, 2), uniform in [0, 1)."""
    return np.where(u[:, 0] < SHARPENED, u[:, 1] * config.sharpen, 0.0)


def sharpened(hdr: Tensor, amount: np.ndarray) -> Tensor:
    """Scenes with the difference from their blurred selves enlarged by `amount`, (N,), in the logarithm; > 0 stays so.

    hdr: (N, 3, H, W), linear. The blur is binomial, 5×5.
    """
    if not amount.any():
        return hdr
    log = hdr.clamp_min(BLACK).log_()
    soft = F.pad(log, (2, 2, 2, 2), mode="replicate")
    for axis in (2, 3):
        a, b, c, d, e = (soft.narrow(axis, shift, hdr.shape[axis]) for shift in range(5))
        soft = torch.add(a, e).add_(b, alpha=4).add_(d, alpha=4).add_(c, alpha=6)
    return log.sub_(soft, alpha=1 / 256).mul_(upload(amount, hdr.device).view(-1, 1, 1, 1)).exp_().mul_(hdr)
