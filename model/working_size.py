"""The level of a large clipped area, from a reduced picture: the answer should not depend on how many pixels show it.

The network has learned what windows and skies look like on pictures of `WORKING_SIZE` pixels, and sees about 260 each
way. Of a 24-megapixel sky it sees nothing but white. So Y is computed twice: on the whole picture, for the detail, and
on the picture reduced to the working size, for the level: the mean of what the first says over each pixel of the second
is replaced by what the second says. Not in the paper.
"""

from collections.abc import Callable

import numpy as np

from model.exposure import exposure_mask

WORKING_SIZE = 512
"""Pixels of the longer side: training cuts views of 35 to 110 degrees at 256 to 512 pixels."""

MIN_CLIPPED_SHARE = 1e-3  # share of a reduced pixel that must be clipped for its level to be asked for
FADE_SHARE = 0.02  # of a pixel's neighbours: where so little is clipped, the correction fades out
_VALUES = 2**18  # of a picture, worked on at a time

Edges = tuple[np.ndarray, np.ndarray]
Box = tuple[slice, slice]


def working_edges(picture: np.ndarray, side: int) -> Edges:
    """The first row and column of each block of pixels that becomes one, when the longer side becomes `side`."""
    height, width = picture.shape[:2]
    rows, columns = (max(1, round(length * side / max(height, width))) for length in (height, width))
    return np.arange(rows) * height // rows, np.arange(columns) * width // columns


def block_means(values: Callable[[slice], np.ndarray], edges: Edges, height: int, width: int) -> np.ndarray:
    """The mean over each block, float32 rows×columns×C. values: rows of an H×W×C picture, which is never held whole."""
    rows, columns = edges
    ends = np.append(rows[1:], height)
    across = np.diff(columns, append=width)
    step = max(1, _VALUES * len(rows) // (height * width))
    bands = []
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        last = ends[min(first + step, len(rows)) - 1]
        sums = np.add.reduceat(values(slice(part[0], last)), part - part[0], axis=0)
        sums = np.add.reduceat(sums, columns, axis=1)
        bands.append(sums / (np.diff(part, append=last)[:, None] * across)[..., None])
    return np.concatenate(bands).astype(np.float32)


def match_level(
    log_hdr: np.ndarray,
    ldr: np.ndarray,
    clipped: np.ndarray,
    small_log: np.ndarray,
    small_ldr: np.ndarray,
    edges: Edges,
    threshold: float,
    least: float,
) -> None:
    """Gives `log_hdr` the level of `small_log`, in place, where the mask is below 1.

    log_hdr, ldr: Y and T of the picture, float32 H×W×3. clipped: where a channel's mask is below 1, bool H×W, at least
    one pixel. small_log, small_ldr: Y and T of its blocks, which begin at `edges`. threshold: α. least: the smallest Y
    that eq. 1 shows; less counts as this.
    """
    pixels, blocks, edges = _box(clipped, edges)
    log_hdr, ldr, small_log, small_ldr = log_hdr[pixels], ldr[pixels], small_log[blocks], small_ldr[blocks]
    height, width = ldr.shape[:2]

    def weighted(rows: slice) -> np.ndarray:
        weight = 1 - exposure_mask(ldr[rows], threshold)
        return np.concatenate([weight * np.maximum(log_hdr[rows], least), weight], axis=2)

    full = block_means(weighted, edges, height, width)
    amount = np.minimum(full[..., 3:], 1 - exposure_mask(small_ldr, threshold))
    amount[full[..., 3:] < MIN_CLIPPED_SHARE] = 0
    change = np.maximum(small_log, least) - full[..., :3] / np.maximum(full[..., 3:], MIN_CLIPPED_SHARE)
    field = np.concatenate([amount * change, amount], axis=2)
    down, across = _between(edges[0], height), _between(edges[1], width)
    step = max(1, _VALUES // (3 * width))
    for rows in (slice(top, min(top + step, height)) for top in range(0, height, step)):
        below = exposure_mask(ldr[rows], threshold) < 1
        if below.any():
            here = _along(_along(field, 0, down[0][rows], down[1][rows]), 1, *across)
            shift = here[..., :3] / (here[..., 3:] + FADE_SHARE)
            np.add(np.maximum(log_hdr[rows], least), shift, out=log_hdr[rows], where=below)


def _box(clipped: np.ndarray, edges: Edges) -> tuple[Box, Box, Edges]:
    """The smallest rectangle of whole blocks that holds what is clipped: in pixels, in blocks, and their edges."""
    pixels, blocks, own = [], [], []
    for axis, edge in enumerate(edges):
        found = np.flatnonzero(clipped.any(axis=1 - axis))
        first, last = np.searchsorted(edge, (found[0], found[-1]), side="right") - (1, 0)
        end = edge[last] if last < len(edge) else clipped.shape[axis]
        pixels.append(slice(edge[first], end))
        blocks.append(slice(first, last))
        own.append(edge[first:last] - edge[first])
    return (pixels[0], pixels[1]), (blocks[0], blocks[1]), (own[0], own[1])


def _between(edge: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `length` pixels the lower of the two blocks whose middles it lies between, and how far along."""
    middle = (edge + np.append(edge[1:], length)) / 2
    position = np.interp(np.arange(length) + 0.5, middle, np.arange(len(edge)))
    lower = np.minimum(position.astype(np.intp), max(len(edge) - 2, 0))
    return lower, (position - lower).astype(np.float32)


def _along(field: np.ndarray, axis: int, lower: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`field` between its pixels, linearly, along one axis."""
    upper = np.minimum(lower + 1, field.shape[axis] - 1)
    share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    low = field.take(lower, axis)
    return low + share * (field.take(upper, axis) - low)
