"""PIQE, which judges a picture without knowing the truth: 0 is the best, 100 the worst.

Venkatanath, Praneeth, Chandrasekhar, Channappayya and Medasani 2015, "Blind image quality evaluation using perception
based features" (NCC): blocks in which something happens are looked at for edges that are too flat (compression) and for
noise. Where the paper leaves a detail open it is that of MATLAB's `piqe`, which Hanji et al. 2022 use.
"""

import math

import numpy as np

BLOCK = 16  # pixels a side
SEGMENT = 6  # pixels of a block's edge
ACTIVE = 0.1  # variance of a block's normalised values, above which something happens in it
FLAT = 0.1  # standard deviation of a segment, below which it is too flat
CENTRE, SURROUND = [7, 8], [*range(7), 8, *range(10, 16)]  # columns of a block; MATLAB's own, column 8 is in both
SIGMA = 7 / 6  # of the window of 7×7 pixels that values are normalised in
GREY = np.array([0.2989, 0.5870, 0.1140])  # BT.601 luma, as MATLAB rounds it


def piqe(picture: np.ndarray) -> float:
    """picture: H×W×3, encoded, 0 to 1; 8 bits of it are looked at. NaN where it has one."""
    if np.isnan(picture).any():
        return math.nan
    height, width = picture.shape[:2]
    codes = np.rint(255 * (picture.astype(np.float64) @ GREY))
    codes = np.pad(codes, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    squares = _normalised(codes).reshape(codes.shape[0] // BLOCK, BLOCK, -1, BLOCK).swapaxes(1, 2)
    blocks = squares.reshape(-1, BLOCK, BLOCK)
    variance = blocks.var(axis=(1, 2), ddof=1)
    active = variance > ACTIVE
    blocks, variance = blocks[active], variance[active]
    distortion = np.where(_has_flat_edge(blocks), 1 - variance, 0.0) + np.where(_is_noisy(blocks), variance, 0.0)
    return float(100 * (distortion.sum() + 1) / (len(blocks) + 1))


def _normalised(codes: np.ndarray) -> np.ndarray:
    """(value − mean) / (standard deviation + 1), around each pixel."""
    from scipy.ndimage import gaussian_filter

    def window(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, SIGMA, radius=3, mode="nearest")

    mean = window(codes)
    deviation = np.sqrt(np.abs(window(codes * codes) - mean * mean))
    normalised: np.ndarray = (codes - mean) / (deviation + 1)
    return normalised


def _has_flat_edge(blocks: np.ndarray) -> np.ndarray:
    edges = np.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], axis=1)
    segments = np.lib.stride_tricks.sliding_window_view(edges, SEGMENT, axis=2)
    flat: np.ndarray = (segments.std(axis=3, ddof=1) < FLAT).any(axis=(1, 2))
    return flat


def _is_noisy(blocks: np.ndarray) -> np.ndarray:
    """Whether a block varies more than twice as much as its middle differs from the rest."""
    deviation = blocks.std(axis=(1, 2), ddof=1)
    centre, surround = (blocks[:, :, columns].std(axis=(1, 2), ddof=1) for columns in (CENTRE, SURROUND))
    ratio = np.divide(centre, surround, out=np.zeros_like(centre), where=surround > 0)
    noisy: np.ndarray = deviation > 2 * np.abs(deviation - ratio) / np.maximum(deviation, ratio)
    return noisy
