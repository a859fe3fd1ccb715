"""The virtual camera: an HDR patch → what a camera makes of it, and the truth at that exposure.

After Eilertsen et al., "HDR image reconstruction from a single exposure using deep CNNs", ACM TOG 36(6), 2017,
section 5.1. The truth is eq. 1's H: on the scale on which T² is right beside what the camera clipped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from model.constants import LOG_RANGE, LUMINANCE
from model.errors import Ldr2hdrError

BRIGHTEST = math.exp(LOG_RANGE[1]) - 1
"""Truths are clamped to this, the top of the network's log range."""

MIDTONES = (0.5, 0.9)

_LUMA = np.array(LUMINANCE, np.float32)


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
    fov_high: float = 100.0
    pitch_max: float = 60.0
    roll_max: float = 15.0
    scale_low: float = 0.5

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


def camera_curve(x: np.ndarray, n: float, sigma: float) -> np.ndarray:
    """f(x) = (1+σ)·xⁿ/(xⁿ+σ), [0, 1] → [0, 1]: linear light to display code. Eilertsen et al. 2017, section 5.1."""
    power = np.power(x, n)
    return (1 + sigma) * power / (power + sigma)


def inverse_camera_curve(y: np.ndarray, n: float, sigma: float) -> np.ndarray:
    """The x for which camera_curve(x, n, sigma) is y, both in [0, 1]."""
    return np.power(sigma * y / (1 + sigma - y), 1 / n)


def midtone_scale(n: float, sigma: float) -> float:
    """The factor under which the truth agrees with T², eq. 1, in the midtones: display codes of 0.5 to 0.9.

    A camera's curve has a shoulder, so T² of a picture that it made is a seventh too bright in the midtones on
    average, relative to the clip level. Converting keeps the midtones, so highlights learnt relative to the clip
    level would be a seventh too dark beside them.
    """
    code = np.linspace(*MIDTONES, 41)
    return float(np.exp(np.median(np.log(code**2 / inverse_camera_curve(code, n, sigma)))))


def expose(hdr: np.ndarray, share: float) -> float:
    """The factor under which `share` of the pixels have a channel at 1.0 or above. hdr: H×W×3 linear."""
    return _to_one(float(np.quantile(_brightest(hdr), 1 - share)))


def expose_mildly(hdr: np.ndarray, stops: float) -> float:
    """The factor under which the 99.5th percentile of the brightest channel lies `stops` above the clip level."""
    return 2.0**stops * _to_one(float(np.quantile(_brightest(hdr), 0.995)))


def _brightest(hdr: np.ndarray) -> np.ndarray:
    """hdr.max(axis=2), ten times as fast."""
    return np.maximum(np.maximum(hdr[..., 0], hdr[..., 1]), hdr[..., 2])


def _to_one(level: float) -> float:
    return 1.0 / max(level, 1e-6)


def draw_exposure(hdr: np.ndarray, rng: np.random.Generator, config: CameraConfig) -> float:
    """A factor for the patch, of one of the two kinds."""
    mild = rng.random() < config.mild_probability
    share = math.exp(rng.uniform(math.log(config.share_low), math.log(config.share_high)))
    stops = rng.uniform(config.mild_low, config.mild_high)
    return expose_mildly(hdr, stops) if mild else expose(hdr, share)


def photograph(
    hdr: np.ndarray, rng: np.random.Generator, config: CameraConfig, factor: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Take a picture of an HDR patch.

    hdr: H×W×3 float32, linear, any scale. factor: of the exposure, drawn where None.
    Returns (ldr, truth), float32 H×W×3: what the camera gives, in 256 steps of [0, 1], and the exposed scene, on the
    scale that `config.midtone_scale` says.
    """
    if factor is None:
        factor = draw_exposure(hdr, rng, config)
    hue, saturation = rng.normal(0, config.hue_std), max(rng.normal(1, config.saturation_std), 0)
    truth = np.clip(jitter_colour(hdr, hue, saturation) * np.float32(factor), 0, BRIGHTEST)
    n = max(rng.normal(config.n_mean, config.n_std), 0.2)
    sigma = max(rng.normal(config.sigma_mean, config.sigma_std), 0.05)
    code = camera_curve(np.minimum(truth, 1), n, sigma)
    noise = rng.uniform(0, config.noise_max) * rng.standard_normal(code.shape, np.float32)
    # A clipped sensor stays clipped whatever its noise, so noise is added below the clip level only.
    code = np.where(truth >= 1, 1, code + noise)
    if config.midtone_scale:
        truth = np.clip(truth * np.float32(midtone_scale(n, sigma)), 0, BRIGHTEST)
    ldr = np.rint(np.clip(code, 0, 1) * 255).astype(np.uint8)
    if rng.random() < config.jpeg_probability:
        ldr = jpeg(ldr, int(rng.integers(config.jpeg_low, config.jpeg_high + 1)))
    return ldr.astype(np.float32) / 255, truth.astype(np.float32)


def jitter_colour(hdr: np.ndarray, hue: float, saturation: float) -> np.ndarray:
    """Turn the hue by `hue` degrees about the grey axis and scale the saturation; greys stay, nothing goes below 0."""
    angle = math.radians(hue)
    third, side = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    turn = np.array(
        [[third, third - side, third + side], [third + side, third, third - side], [third - side, third + side, third]]
    ) + math.cos(angle) * np.eye(3)
    fade = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
    return np.maximum(hdr @ (fade @ turn).T.astype(np.float32), 0)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """uint8 H×W×3 through JPEG of a quality from 1 to 100."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]
