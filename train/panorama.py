"""Perspective views out of equirectangular panoramas."""

import math

import cv2
import numpy as np


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
    height, width = size
    focal = focal_length(width, fov)
    panorama = reduced(panorama, focal)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = (columns + 0.5 - width / 2) / focal, (height / 2 - rows - 0.5) / focal
    directions = np.stack([x, y, np.ones_like(x)], -1) @ rotation(yaw, pitch, roll).T.astype(np.float32)
    longitude = np.arctan2(directions[..., 0], directions[..., 2])
    latitude = np.arctan2(directions[..., 1], np.hypot(directions[..., 0], directions[..., 2]))
    high, wide = panorama.shape[:2]
    u = ((longitude / (2 * math.pi) + 0.5) * wide - 0.5) % wide
    v = np.clip((0.5 - latitude / math.pi) * high - 0.5, 0, high - 1)
    u, v = u.astype(np.float32), v.astype(np.float32)
    # Past the last column comes the first.
    return cv2.remap(panorama, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def random_direction(rng: np.random.Generator, pitch_max: float, roll_max: float) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees; pitch within ±pitch_max, evenly over the sphere."""
    limit = math.sin(math.radians(min(pitch_max, 90)))
    return (
        float(rng.uniform(-180, 180)),
        math.degrees(math.asin(float(rng.uniform(-limit, limit)))),
        float(rng.uniform(-roll_max, roll_max)),
    )


def focal_length(width: int, fov: float) -> float:
    """Of a view `width` pixels wide with a horizontal field of view in degrees; in pixels."""
    return width / 2 / math.tan(math.radians(fov) / 2)


def reduced(panorama: np.ndarray, focal: float) -> np.ndarray:
    """Halved until one of its pixels is at least half a pixel of a view of that focal length."""
    while panorama.shape[1] / (2 * math.pi) >= 2 * focal and panorama.shape[0] >= 4:
        high = panorama.shape[0] // 2
        wide = 2 * high if is_panorama(panorama.shape) else panorama.shape[1] // 2  # an odd height stays 2:1
        panorama = cv2.resize(panorama, (wide, high), interpolation=cv2.INTER_AREA)
    return panorama


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera to panorama: x right, y up, z ahead; roll, then pitch, then yaw."""
    a, b, c = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    about_z = np.array([[math.cos(c), math.sin(c), 0], [-math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
