"""What a camera is pointed at: pictures as tensors, perspective views of equirectangular panoramas, crops of flat ones.

Numbers of a view (angles, corners) are host arrays; only pixels are on the device, so that nothing waits for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Number = TypeVar("Number", float, np.ndarray)

MIDDLE_GREY = 0.18
HALF_MAX = 65000.0  # under float16's largest number


@dataclass(frozen=True)
class Picture:
    """A picture to cut patches from: float16 (3, H, W), linear on any scale, or display-encoded for inpainting.

    levels: a flat picture's one; of a panorama the whole and its halves, each with a column of the other end on
    either side, as past the last column comes the first.
    """

    levels: tuple[Tensor, ...]
    around: bool = False

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)

    def to(self, device: torch.device) -> "Picture":
        return Picture(tuple(level.to(device, non_blocking=True) for level in self.levels), self.around)

    def pinned(self) -> "Picture":
        return Picture(tuple(level.pin_memory() for level in self.levels), self.around)


def panorama(scene: np.ndarray, finest: float, coarsest: float) -> Picture:
    """A linear panorama, float32 H×W×3, for views of focal lengths from `coarsest` to `finest` pixels."""
    scene = reduced(scene * scale_for_half(scene), finest)
    levels = [scene]
    while (smaller := _halved(levels[-1], coarsest)) is not levels[-1]:
        levels.append(smaller)
    return Picture(tuple(to_tensor(_wrapped(level)).half() for level in levels), around=True)


def flat(picture: np.ndarray, least: int, linear: bool = True) -> Picture:
    """A flat picture, float32 H×W×3, halved while its shorter side stays above `least` pixels.

    linear: light on any scale, brought to one that float16 holds; else display-encoded, and left as it is.
    """
    if linear:
        picture = picture * scale_for_half(picture)
    while min(picture.shape[:2]) >= 2 * least:
        picture = cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return Picture((to_tensor(picture).half(),))


def scale_for_half(scene: np.ndarray) -> np.float32:
    """A factor that brings a linear picture's median to middle grey, or less where float16 could not hold its peak."""
    middle, peak = max(float(np.median(scene)), 1e-6), max(float(scene.max()), 1e-6)
    return np.float32(min(MIDDLE_GREY / middle, HALF_MAX / peak))


def to_tensor(picture: np.ndarray) -> Tensor:
    """H×W×C as a contiguous (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """An array of the host on a device, float64 as float32, without waiting for what the device is at."""
    return sent(
        torch.from_numpy(np.ascontiguousarray(values, np.float32 if values.dtype == np.float64 else None)), device
    )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. From the host to a GPU it goes through pinned memory, or the host would wait for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.contiguous()
        tensor = tensor if tensor.is_pinned() else tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


# -- panoramas --------------------------------------------------------------------------------------------------------


def is_panorama(shape: tuple[int, ...]) -> bool:
    """Whether a picture of this shape (H, W, …) is twice as wide as high, as 360° panoramas are."""
    return shape[1] == 2 * shape[0]


def perspective(
    panorama: np.ndarray, yaw: float, pitch: float, roll: float, fov: float, size: tuple[int, int]
) -> np.ndarray:
    """The view of a pinhole camera inside a panorama.

    panorama: float32 H×W×3, equirectangular, straight ahead in its middle. yaw: degrees to the right; pitch: up;
    roll: degrees clockwise; fov: horizontal field of view in degrees, under 180; size: (height, width) in pixels.
    Bilinear; where a view pixel covers several source pixels the panorama is first reduced by area, so that small
    lamps keep their energy.
    """
    focal = focal_length(size[1], fov)
    whole = to_tensor(_wrapped(reduced(panorama, focal)))
    turn = rotation(np.array([yaw]), np.array([pitch]), np.array([roll]))
    view = views([Picture((whole,), around=True)], turn, np.array([focal]), np.array([False]), size, whole.device)
    return view[0].permute(1, 2, 0).contiguous().numpy()


def views(
    pictures: Sequence[Picture],
    turn: np.ndarray,
    focal: np.ndarray,
    mirrored: np.ndarray,
    size: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """float32 (N, 3, height, width): a view of each panorama, bilinear, from the level whose pixels fit.

    turn: (N, 3, 3) of `rotation`; focal: (N,) pixels; mirrored: (N,), left for right.
    """
    height, width = size
    matrix = upload(turn, device).view(-1, 3, 3, 1, 1)
    scale = upload(np.stack([np.where(mirrored, -1, 1) / focal, 1 / focal], 1), device).view(-1, 2, 1, 1)
    x = (torch.arange(width, device=device) + (0.5 - width / 2)).view(1, 1, -1) * scale[:, 0]
    y = ((height / 2 - 0.5) - torch.arange(height, device=device)).view(1, -1, 1) * scale[:, 1]
    across, up, ahead = (matrix[:, k, 0] * x + matrix[:, k, 1] * y + matrix[:, k, 2] for k in range(3))
    longitude = torch.atan2(across, ahead).mul_(1 / (2 * math.pi)).add_(0.5)
    latitude = torch.atan2(up, torch.hypot(across, ahead)).mul_(-1 / math.pi).add_(0.5)
    seen = []
    for number, picture in enumerate(pictures):
        level = _level(picture, float(focal[number]))
        high, wide = level.shape[1], level.shape[2] - 2
        column = (longitude[number] * wide - 0.5).remainder_(wide) + 1
        row = (latitude[number] * high - 0.5).clamp_(0, high - 1)
        grid = torch.stack((column.mul_(2 / (wide + 1)).sub_(1), row.mul_(2 / max(high - 1, 1)).sub_(1)), -1)
        source = sent(level, device)[None].float()
        seen.append(F.grid_sample(source, grid[None], mode="bilinear", padding_mode="border", align_corners=True))
    return torch.cat(seen)


def focal_length(width: int, fov: Number) -> Number:
    """Of a view `width` pixels wide with a horizontal field of view in degrees; in pixels."""
    focal: Number = width / 2 / np.tan(np.radians(fov) / 2)
    return focal


def rotation(yaw: float | np.ndarray, pitch: float | np.ndarray, roll: float | np.ndarray) -> np.ndarray:
    """Camera to panorama, (…, 3, 3): x right, y up, z ahead; roll, then pitch, then yaw, in degrees."""
    a, b, c = (np.radians(np.asarray(angle, np.float64)) for angle in (yaw, pitch, roll))
    one, none = np.ones_like(a), np.zeros_like(a)
    about_y = _matrix(np.cos(a), none, np.sin(a), none, one, none, -np.sin(a), none, np.cos(a))
    about_x = _matrix(one, none, none, none, np.cos(b), np.sin(b), none, -np.sin(b), np.cos(b))
    about_z = _matrix(np.cos(c), np.sin(c), none, -np.sin(c), np.cos(c), none, none, none, one)
    return about_y @ about_x @ about_z


def _matrix(*entries: np.ndarray) -> np.ndarray:
    return np.stack(entries, -1).reshape(*entries[0].shape, 3, 3)


def reduced(panorama: np.ndarray, focal: float) -> np.ndarray:
    """Halved until one of its pixels is at least half a pixel of a view of that focal length."""
    while (smaller := _halved(panorama, focal)) is not panorama:
        panorama = smaller
    return panorama


def _halved(panorama: np.ndarray, focal: float) -> np.ndarray:
    """Half of it by area where a view of that focal length has no use for more; else itself."""
    if panorama.shape[1] / (2 * math.pi) < 2 * focal or panorama.shape[0] < 4:
        return panorama
    high = panorama.shape[0] // 2
    wide = 2 * high if is_panorama(panorama.shape) else panorama.shape[1] // 2  # an odd height stays 2:1
    return cv2.resize(panorama, (wide, high), interpolation=cv2.INTER_AREA)


def _wrapped(panorama: np.ndarray) -> np.ndarray:
    return np.concatenate((panorama[:, -1:], panorama, panorama[:, :1]), 1)


def _level(picture: Picture, focal: float) -> Tensor:
    """The level that `reduced` would give for a view of that focal length."""
    return next((one for one in picture.levels if (one.shape[2] - 2) / (2 * math.pi) < 2 * focal), picture.levels[-1])


# -- flat pictures ----------------------------------------------------------------------------------------------------


def crops(
    pictures: Sequence[Picture],
    scale: np.ndarray,
    place: np.ndarray,
    mirrored: np.ndarray,
    size: int,
    device: torch.device,
) -> Tensor:
    """float32 (N, 3, size, size): a square of each flat picture, resized.

    scale: (N,) side over the shorter side, at least `size` pixels of it; place: (N, 2) in [0, 1), of the top left
    corner among the possible ones; mirrored: (N,), left for right.
    """
    cut = []
    for number, picture in enumerate(pictures):
        (whole,) = picture.levels
        high, wide = whole.shape[1:]
        shorter = min(high, wide)
        side = min(shorter, max(size, round(shorter * float(scale[number])))) if shorter >= size else shorter
        top, left = int(place[number, 0] * (high - side + 1)), int(place[number, 1] * (wide - side + 1))
        square = sent(whole[None, :, top : top + side, left : left + side], device).float()
        if side != size:
            square = F.interpolate(square, (size, size), mode="bilinear", align_corners=False, antialias=side > size)
        cut.append(square.flip(3) if mirrored[number] else square)
    return torch.cat(cut)
