"""Filters of the operators: blur, gradients, the density of light sources, a bilateral grid."""

import cv2
import numpy as np


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REPLICATE)


def sobel5(picture: np.ndarray, axis: int) -> np.ndarray:
    """5×5 Sobel derivative, divided by the sum of its absolute weights (96)."""
    dx, dy = (0, 1) if axis == 0 else (1, 0)
    return cv2.Sobel(picture, cv2.CV_32F, dx, dy, ksize=5, borderType=cv2.BORDER_REPLICATE) / 96.0


def light_density(luminance: np.ndarray, splits: int = 10) -> np.ndarray:
    """Density of 2^splits median-cut light sources, H×W in [0, 1], 1 where it is greatest."""
    height, width = luminance.shape
    lights = np.zeros((height, width), dtype=np.float32)
    for row, column, power in median_cut(luminance, splits):
        lights[row, column] += power
    # Half the mean distance of evenly spread lights, times eight, is the reach of one; a fifth of it is σ.
    reach = 8.0 * max(height, width) / (2.0 * 2.0 ** (splits / 2))
    density = blur(lights, reach / 5.0)
    greatest = float(density.max())
    return density / greatest if greatest > 0 else density


def median_cut(luminance: np.ndarray, splits: int) -> list[tuple[int, int, float]]:
    """Light sources of equal power as (row, column, power): Debevec 2005, "A median cut algorithm for light
    probe sampling" (SIGGRAPH posters). Each region is cut across its longer side where its sum halves.
    """
    table = np.pad(luminance.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    regions = [(0, luminance.shape[0], 0, luminance.shape[1])]
    for _ in range(splits):
        regions = [half for region in regions for half in _halves(table, region)]
    lights = []
    for top, bottom, left, right in regions:
        across = table[top : bottom + 1, right] - table[top : bottom + 1, left]
        down = table[bottom, left : right + 1] - table[top, left : right + 1]
        power = float(across[-1] - across[0])
        if power > 0:
            lights.append((top + _middle(across), left + _middle(down), power))
    return lights


def _halves(table: np.ndarray, region: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    top, bottom, left, right = region
    if bottom - top >= right - left:
        if bottom - top < 2:
            return [region]
        cut = top + _cut(table[top : bottom + 1, right] - table[top : bottom + 1, left])
        return [(top, cut, left, right), (cut, bottom, left, right)]
    cut = left + _cut(table[bottom, left : right + 1] - table[top, left : right + 1])
    return [(top, bottom, left, cut), (top, bottom, cut, right)]


def _middle(cumulative: np.ndarray) -> int:
    """Index of the cell in which a cumulative sum (one entry more than cells) passes its half."""
    half = 0.5 * (cumulative[0] + cumulative[-1])
    return int(np.clip(np.searchsorted(cumulative, half) - 1, 0, cumulative.size - 2))


def _cut(cumulative: np.ndarray) -> int:
    """Where to cut so that both sides hold about half; at least one cell on either side."""
    half = 0.5 * (cumulative[0] + cumulative[-1])
    return int(np.clip(np.argmin(np.abs(cumulative - half)), 1, cumulative.size - 2))


def cross_bilateral(values: np.ndarray, guide: np.ndarray, cell: float, sigma_range: float) -> np.ndarray:
    """`values` (H×W) smoothed among pixels that are near and whose `guide` is alike: a bilateral grid.

    cell: spatial σ in pixels, sigma_range: σ of the guide; the grid has one cell per σ either way, is filled
    by nearest neighbour, blurred by a Gaussian of one cell and read trilinearly.
    """
    height, width = guide.shape
    pad = 2
    rows, columns = np.arange(height) / cell + pad, np.arange(width) / cell + pad
    levels = (guide / sigma_range + pad).astype(np.float32)
    shape = tuple(int(v) + pad + 2 for v in (levels.max(), rows[-1], columns[-1]))
    at = np.ravel_multi_index(
        (np.rint(levels).astype(np.intp), np.rint(rows).astype(np.intp)[:, None], np.rint(columns).astype(np.intp)),
        shape,
    ).ravel()
    size = int(np.prod(shape))
    weight = np.bincount(at, minlength=size).reshape(shape).astype(np.float32)
    total = np.bincount(at, weights=values.ravel(), minlength=size).reshape(shape).astype(np.float32)
    weight, total = _blur_grid(weight), _blur_grid(total)
    map_x, map_y = (m.astype(np.float32) for m in np.meshgrid(columns, rows))
    numerator, denominator = np.zeros((2, height, width), dtype=np.float32)
    for level in range(shape[0]):
        tent = np.maximum(1.0 - np.abs(levels - level), 0.0)
        if tent.any():
            numerator += tent * cv2.remap(total[level], map_x, map_y, cv2.INTER_LINEAR)
            denominator += tent * cv2.remap(weight[level], map_x, map_y, cv2.INTER_LINEAR)
    return np.clip(numerator / np.maximum(denominator, 1e-12), 0.0, 1.0)


def _blur_grid(grid: np.ndarray) -> np.ndarray:
    """Gaussian of σ = 1 cell along the three axes of a grid whose outermost two cells are empty."""
    kernel = np.exp(-0.5 * np.arange(-2, 3) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for axis in range(3):
        padded = np.pad(grid, [(2, 2) if a == axis else (0, 0) for a in range(3)])
        length = grid.shape[axis]
        grid = sum(w * np.take(padded, range(i, i + length), axis=axis) for i, w in enumerate(kernel))
    return grid
