"""What the metric is given: pictures in absolute light, and how large their pixels are seen."""

import math

import numpy as np
import torch

SMALLEST = 16  # pixels a side


def angular_resolution(
    diagonal: float = 24.0, resolution: tuple[int, int] = (1920, 1080), distance: float = 1.0
) -> float:
    """Pixels per degree of a flat display with square pixels.

    diagonal: inches. resolution: width and height in pixels. distance: from the eye, metres.
    """
    width, height = resolution
    height_m = diagonal * 0.0254 * height / math.hypot(width, height)
    return height / math.degrees(2 * math.atan(0.5 * height_m / distance))


def light_of(test: np.ndarray, reference: np.ndarray, device: str | torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """H×W or H×W×3 → 1×H×W or 3×H×W, float64. Raises ValueError for other shapes."""
    if np.shape(test) != np.shape(reference):
        raise ValueError(f"shapes differ: {np.shape(test)}, {np.shape(reference)}")
    shape = np.shape(test)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or min(shape[:2]) < SMALLEST:
        raise ValueError(f"{shape} is neither H×W nor H×W×3 of at least {SMALLEST} a side")
    pictures = (torch.from_numpy(np.array(p, dtype=np.float64)).to(device) for p in (test, reference))
    first, second = (p[None] if p.ndim == 2 else p.permute(2, 0, 1) for p in pictures)
    return first, second
