"""Panoramas as lights: what a scene lit by a picture would look like, which is what a lighter asks of it."""

import math

import numpy as np

from model.constants import LUMINANCE

NORMALS = 64
"""Directions in which light is measured: points of a diffuse sphere."""

_FAINT = 1e-4  # of the truth's brightest irradiance: a side that is darker than this counts as this


def irradiance(panorama: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """E(n) = ∫ L(ω)·max(n·ω, 0) dω: what a white diffuse surface with each normal receives, float64 N.

    panorama: H×W×3, equirectangular, linear. normals: N×3, of length 1; x to the right of the middle, y up, z ahead.
    """
    height, width = panorama.shape[:2]
    edges = np.sin(math.pi * (0.5 - np.arange(height + 1) / height))
    area = (edges[:-1] - edges[1:]) * (2 * math.pi / width)  # steradians of a pixel, row by row
    latitude = math.pi * (0.5 - (np.arange(height) + 0.5) / height)
    longitude = 2 * math.pi * ((np.arange(width) + 0.5) / width - 0.5)
    light = panorama.astype(np.float64) @ np.array(LUMINANCE) * area[:, None]
    received = np.zeros(len(normals))
    for row in range(height):
        around = np.stack([np.sin(longitude), np.zeros(width), np.cos(longitude)], 1) * math.cos(latitude[row])
        around[:, 1] = math.sin(latitude[row])
        received += np.maximum(normals @ around.T, 0) @ light[row]
    return received


def sphere(count: int = NORMALS) -> np.ndarray:
    """Directions spread evenly over the sphere, count×3: a Fibonacci lattice (González 2010)."""
    index = np.arange(count) + 0.5
    up = 1 - 2 * index / count
    turn = index * math.pi * (3 - math.sqrt(5))
    across = np.sqrt(1 - up**2)
    return np.stack([across * np.sin(turn), up, across * np.cos(turn)], 1)


def light_rmse_stops(prediction: np.ndarray, truth: np.ndarray) -> float:
    """RMS over a diffuse sphere's directions of log2(E_prediction / E_truth): stops by which a lit scene is off.

    prediction, truth: H×W×3 panoramas of one size, equirectangular, linear, on one scale.
    """
    normals = sphere()
    expected = irradiance(truth, normals)
    floor = max(_FAINT * float(expected.max()), 1e-12)
    error = np.log2(np.maximum(irradiance(prediction, normals), floor)) - np.log2(np.maximum(expected, floor))
    return float(np.sqrt(np.mean(error**2)))
