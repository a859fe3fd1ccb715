"""Irregular holes for inpainting: streaks, strokes and blobs of any shape and size.

In the manner of Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, section 4.1,
whose masks came from tracked occlusions; these are drawn on the fly.
"""

import math

import cv2
import numpy as np
from torch import Tensor

_MOST_SHAPES = 400


def irregular_hole(
    rng: np.random.Generator, height: int, width: int, share: tuple[float, float] = (0.0, 0.6)
) -> np.ndarray:
    """A hole, bool H×W, True inside. Its share of the pixels is drawn evenly from `share`, and never above its end.

    Shapes are drawn until the share is reached; one that would overshoot the upper end is left out.
    """
    wanted, most = rng.uniform(*share), share[1] * height * width
    hole = np.zeros((height, width), np.uint8)
    draw = (_streak, _stroke, _blob)
    scale = 1.0
    for _ in range(_MOST_SHAPES):
        if np.count_nonzero(hole) >= wanted * height * width:
            break
        before = hole.copy()
        draw[int(rng.integers(3))](hole, rng, scale)
        if np.count_nonzero(hole) > most:
            hole, scale = before, scale * 0.8  # what is left to fill is small: so are the next shapes
    return hole.astype(bool)


def binary_mask(holes: Tensor) -> Tensor:
    """The masks of holes, bool (N, H, W): float32 (N, 3, H, W), 1 = valid."""
    return (~holes)[:, None].float().repeat(1, 3, 1, 1)


def _size(hole: np.ndarray, rng: np.random.Generator, low: float, high: float, scale: float) -> int:
    """A length in pixels, between two shares of the shorter side, small ones as likely as large."""
    side = min(hole.shape) * scale
    return max(1, round(math.exp(rng.uniform(math.log(max(side * low, 1)), math.log(max(side * high, 1))))))


def _point(hole: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(hole.shape[1])), int(rng.integers(hole.shape[0]))


def _streak(hole: np.ndarray, rng: np.random.Generator, scale: float) -> None:
    """A straight line across a part of the picture."""
    x, y = _point(hole, rng)
    angle, length = rng.uniform(0, 2 * math.pi), _size(hole, rng, 0.2, 1.0, scale)
    end = (round(x + length * math.cos(angle)), round(y + length * math.sin(angle)))
    cv2.line(hole, (x, y), end, 1, _size(hole, rng, 0.01, 0.06, scale))


def _stroke(hole: np.ndarray, rng: np.random.Generator, scale: float) -> None:
    """A brush that wanders."""
    x, y = map(float, _point(hole, rng))
    angle, thickness = rng.uniform(0, 2 * math.pi), _size(hole, rng, 0.02, 0.15, scale)
    for _ in range(int(rng.integers(3, 12))):
        angle += rng.normal(0, 0.7)
        step = _size(hole, rng, 0.03, 0.15, scale)
        after = (x + step * math.cos(angle), y + step * math.sin(angle))
        cv2.line(hole, (round(x), round(y)), (round(after[0]), round(after[1])), 1, thickness)
        x, y = after


def _blob(hole: np.ndarray, rng: np.random.Generator, scale: float) -> None:
    """A closed shape whose radius waves around its middle."""
    x, y = _point(hole, rng)
    radius = _size(hole, rng, 0.03, 0.3, scale)
    turn = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    wave = np.ones_like(turn)
    for order in range(1, 6):
        wave += rng.uniform(0, 0.5 / order) * np.cos(order * turn + rng.uniform(0, 2 * math.pi))
    outline = np.stack([x + radius * wave * np.cos(turn), y + radius * wave * np.sin(turn)], 1)
    cv2.fillPoly(hole, [np.rint(outline).astype(np.int32)], 1)
