"""Clips whose truth and motion are known: a virtual camera that moves inside an HDR panorama.

It pans, tilts or zooms with a shaking hand, its exposure drifts, its sensor is noisy, and a ball flies through the
picture. Every number follows from the seed and the scene's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from ldr2hdr_cli.evaluation.protocol import CURVE_N, CURVE_SIGMA, TRIES, numbers_of, scenes
from ldr2hdr_cli.media.pictures import read_hdr
from ldr2hdr_cli.terminal import one_line
from model.errors import Ldr2hdrError
from train.camera import camera_curve, expose
from train.views import focal_length, is_panorama, perspective, rotation, to_tensor

MOTIONS = ("pan", "tilt", "zoom")  # one a scene, in turn
SPEED = (0.3, 1.0)  # degrees a frame of a pan or tilt; at 512 pixels and 75°, 2 to 7 pixels
ZOOM = (0.004, 0.010)  # of the field of view, a frame
SHAKE = 0.12  # degrees a frame, standard deviation, in yaw, pitch and roll
DRIFT = 0.02  # stops a frame, standard deviation
SHOT, READ = 2e-4, 1.5e-3  # variance per linear light, and standard deviation in the dark, where white is 1
BALL = 0.09  # radius, of the picture's side
SUPERSAMPLING = 2  # so that the truth itself does not flicker


@dataclass(frozen=True)
class Pose:
    """Where the camera looks, as `train.views.perspective` takes it, and where the ball is, in pixels."""

    yaw: float
    pitch: float
    roll: float
    fov: float
    ball: tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """ldr: float32 H×W×3 in [0, 1], 8-bit steps. truth: linear, clip level 1.0. ball: float32 H×W, how much it covers.

    stops: of exposure, by which the clip has drifted. clipped: bool H×W×3, channel by channel.
    """

    pose: Pose
    ldr: np.ndarray
    truth: np.ndarray
    ball: np.ndarray
    stops: float

    @cached_property
    def clipped(self) -> np.ndarray:
        return self.truth >= 1


@dataclass(frozen=True)
class Clip:
    """A clip of one scene. level: per cent of the first frame's pixels that clip."""

    name: str
    scene: str
    motion: str
    level: float
    frames: list[Frame]


def made_clips(
    folder: Path, *, level: float = 8.0, frames: int = 24, size: int = 512, seed: int = 0, only: list[str] | None = None
) -> Iterator[Clip]:
    """A clip of each panorama of `folder`, in the order of their names; flat pictures are passed over.

    Raises Ldr2hdrError where there is no panorama.
    """
    number = 0
    for path in scenes(folder, only or []):
        panorama = np.maximum(np.nan_to_num(read_hdr(path)[..., :3], nan=0.0, posinf=65504.0), 0.0)
        if not is_panorama(panorama.shape):
            continue
        clip = _clip(one_line(path.stem), panorama, MOTIONS[number % len(MOTIONS)], level, frames, size, seed)
        number += 1
        if clip is not None:
            yield clip
    if not number:
        raise Ldr2hdrError(f"{folder} holds no panorama, twice as wide as high, for the camera to move in; give one.")


def _clip(scene: str, panorama: np.ndarray, motion: str, level: float, count: int, size: int, seed: int) -> Clip | None:
    rng = numbers_of(seed, scene, motion)
    for _ in range(TRIES):
        start = float(rng.uniform(-180, 180)), float(rng.uniform(-10, 20)), float(rng.uniform(60, 90))
        view = perspective(panorama, start[0], start[1], 0, start[2], (size, size))
        if np.percentile(view.max(axis=2), 99.9) > 2 * np.percentile(view.max(axis=2), 100 - level) > 0:
            break  # what clips is not all of one brightness
    else:
        return None
    poses = _poses(rng, motion, start, count, size)
    stops = np.cumsum(rng.normal(0, DRIFT, count))
    n, sigma = (
        float(np.clip(rng.normal(*one), one[0] - 2 * one[1], one[0] + 2 * one[1])) for one in (CURVE_N, CURVE_SIGMA)
    )
    exposure = float(expose(to_tensor(view)[None], level / 100))
    frames = []
    for pose, stop in zip(poses, stops, strict=True):
        truth, ball = _seen(panorama, pose, size)
        truth *= np.float32(exposure * 2**stop)
        # The ball is painted in multiples of LDR white: a grey with a lamp's glint on it.
        ball_light = _painted(pose, size) * np.float32(2**stop)
        truth = truth * (1 - ball[..., None]) + ball_light * ball[..., None]
        noise = rng.normal(0, 1, truth.shape) * np.sqrt(SHOT * np.minimum(truth, 1) + READ**2)
        exposed = np.clip(truth + noise, 0, 1).astype(np.float32)
        exposed[truth >= 1] = 1  # noise does not bring back what the sensor lost
        ldr = np.rint(np.clip(camera_curve(exposed, n, sigma), 0, 1) * 255).astype(np.float32) / np.float32(255)
        frames.append(Frame(pose, ldr, truth.astype(np.float32), ball, float(stop)))
    return Clip(f"{scene}_{motion}", scene, motion, level, frames)


def _poses(
    rng: np.random.Generator, motion: str, start: tuple[float, float, float], count: int, size: int
) -> list[Pose]:
    direction = float(rng.choice([-1, 1]))
    speed, zoom = float(rng.uniform(*SPEED)), float(rng.uniform(*ZOOM))
    shake = np.cumsum(rng.normal(0, SHAKE, (count, 3)), axis=0)
    row, step = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.6, 1.2)) / count
    poses = []
    for index in range(count):
        yaw, pitch, fov = start
        yaw += direction * speed * index * (motion == "pan")
        pitch += direction * 0.6 * speed * index * (motion == "tilt")
        fov *= (1 - direction * zoom * (motion == "zoom")) ** index
        ball = size * (0.5 - direction * step * (index - count / 2)), size * row
        poses.append(Pose(yaw + shake[index, 0], pitch + shake[index, 1], shake[index, 2], fov, ball))
    return poses


def _seen(panorama: np.ndarray, pose: Pose, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The background, H×W×3, and how much of each pixel the ball covers, H×W."""
    side = SUPERSAMPLING * size
    view = np.maximum(perspective(panorama, pose.yaw, pose.pitch, pose.roll, pose.fov, (side, side)), 0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    x, y = ((one + 0.5) / SUPERSAMPLING - 0.5 for one in (columns, rows))
    inside = ((x - pose.ball[0]) ** 2 + (y - pose.ball[1]) ** 2 < (BALL * size) ** 2).astype(np.float32)
    return (
        cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA),
        cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA),
    )


def _painted(pose: Pose, size: int) -> np.ndarray:
    """The ball's light, float32 H×W×3: striped grey, and a glint of up to four stops over white, that move with it."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    x, y = (columns - pose.ball[0]) / (BALL * size), (rows - pose.ball[1]) / (BALL * size)
    grey = 0.25 + 0.1 * np.sin(9 * x) * np.sin(7 * y)
    glint = 16 * np.exp(-8 * ((x + 0.3) ** 2 + (y + 0.3) ** 2))
    return ((grey + glint)[..., None] * np.array([1.0, 0.9, 0.75])).astype(np.float32)


def motion(now: Pose, before: Pose, size: int) -> np.ndarray:
    """Where each pixel of the background was in the frame before, float32 H×W×2 (x, y), also outside of it."""
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    return project(directions(np.stack([columns, rows], 2), now, size), before, size).astype(np.float32)


def directions(places: np.ndarray, pose: Pose, size: int) -> np.ndarray:
    """…×2 pixel coordinates (x, y) → …×3 directions in the panorama."""
    focal = focal_length(size, pose.fov)
    x, y = (places[..., 0] + 0.5 - size / 2) / focal, (size / 2 - places[..., 1] - 0.5) / focal
    return np.stack([x, y, np.ones_like(x)], -1) @ rotation(pose.yaw, pose.pitch, pose.roll).T


def project(found: np.ndarray, pose: Pose, size: int) -> np.ndarray:
    """…×3 directions → …×2 pixel coordinates (x, y); NaN behind the camera."""
    seen = found @ rotation(pose.yaw, pose.pitch, pose.roll)
    depth = np.where(seen[..., 2] > 1e-6, seen[..., 2], np.nan)
    focal = focal_length(size, pose.fov)
    return np.stack([seen[..., 0] / depth * focal + size / 2 - 0.5, size / 2 - 0.5 - seen[..., 1] / depth * focal], -1)


def correspondence(now: Frame, before: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel was in the frame before, H×W×2, and whether it is the same piece of the world, bool H×W.

    The ball's pixels move with the ball; those at its edge, and what it has just uncovered, have no past.
    """
    size = len(now.ldr)
    place = motion(now.pose, before.pose, size)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    step = np.subtract(now.pose.ball, before.pose.ball).astype(np.float32)
    is_ball = now.ball >= 1
    place[is_ball] = (np.stack([columns, rows], 2) - step)[is_ball]
    place = np.nan_to_num(place, nan=-1e4)
    covered = cv2.remap(
        before.ball, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0.5
    )
    inside = np.all((place >= 0) & (place <= size - 1), axis=2)
    return place, inside & np.where(is_ball, covered >= 1, (now.ball <= 0) & (covered <= 0))
