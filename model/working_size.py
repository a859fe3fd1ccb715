"""The level of a large clipped area, from a reduced picture: the answer should not depend on how many pixels show it.

The network has learned what windows and skies look like on pictures of `WORKING_SIZE` pixels, and sees about 260 each
way. Of a 24-megapixel sky it sees nothing but white. So Y is computed twice: on the whole picture, for the detail, and
on the picture reduced to the working size, for the level: the mean of what the first says over each pixel of the second
is replaced by what the second says. Not in the paper.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.codes import bands
from model.exposure import exposure_mask

WORKING_SIZE = 512
"""Pixels of the longer side: training cuts views of 35 to 110 degrees at 256 to 512 pixels."""

MIN_CLIPPED_SHARE = 1e-3  # share of a reduced pixel that must be clipped for its level to be asked for
FADE_SHARE = 0.02  # of a pixel's neighbours: where so little is clipped, the correction fades out

Edges = tuple[np.ndarray, np.ndarray]
"""Numbers of rows and of columns."""
Box = tuple[slice, slice]


def working_edges(height: int, width: int, side: int) -> Edges:
    """The first row and column of each block of pixels that becomes one, when the longer side becomes `side`."""
    rows, columns = (max(1, round(length * side / max(height, width))) for length in (height, width))
    return np.arange(rows) * height // rows, np.arange(columns) * width // columns


def block_means(values: Callable[[slice], Tensor], edges: Edges, like: Tensor) -> Tensor:
    """The mean over each block, float32 rows×columns×C. values: rows of a picture as large as `like`, H×W×anything."""
    (rows, columns), (height, width) = edges, like.shape[:2]
    ends, across = np.append(rows[1:], height), np.diff(columns, append=width)
    step = max(1, next(bands(like)).stop * len(rows) // height)
    means = []
    for first in range(0, len(rows), step):
        part, last = rows[first : first + step], int(ends[min(first + step, len(rows)) - 1])
        down = np.diff(part, append=last)
        sums = _sums(values(slice(int(part[0]), last)), part - part[0], down, 0)
        sums = _sums(sums, columns, across, 1)
        means.append(sums.div_(_sent((down[:, None, None] * across[:, None]).astype(np.float32), like)))
    return torch.cat(means)


def match_level(
    log_hdr: Tensor,
    ldr: Tensor,
    clipped: Edges,
    small_log: Tensor,
    small_ldr: Tensor,
    edges: Edges,
    threshold: float,
    least: float,
) -> None:
    """Gives `log_hdr` the level of `small_log`, in place, where the mask is below 1.

    log_hdr, ldr: Y and T of the picture, float32 H×W×3. clipped: the rows and the columns where any pixel's mask is
    below 1, at least one of each. small_log, small_ldr: Y and T of its blocks, which begin at `edges`. threshold: α.
    least: the smallest Y that eq. 1 shows; less counts as this.
    """
    pixels, blocks, edges = _box(clipped, edges, log_hdr.shape)
    log_hdr, ldr, small_log, small_ldr = log_hdr[pixels], ldr[pixels], small_log[blocks], small_ldr[blocks]
    height, width = ldr.shape[:2]

    def weighted(rows: slice) -> Tensor:
        weight = 1 - exposure_mask(ldr[rows], threshold)
        return torch.cat((log_hdr[rows].clamp(min=least).mul_(weight), weight), 2)

    full = block_means(weighted, edges, ldr)
    level, share = full[..., :3], full[..., 3:]
    amount = torch.minimum(share, 1 - exposure_mask(small_ldr, threshold)) * (share >= MIN_CLIPPED_SHARE)
    change = small_log.clamp(min=least) - level / share.clamp(min=MIN_CLIPPED_SHARE)
    field = torch.cat((amount * change, amount), 2)
    down, across = (_between(edge, length) for edge, length in zip(edges, (height, width), strict=True))
    field = _along(field, 1, *across)
    for rows in bands(ldr):
        below = exposure_mask(ldr[rows], threshold) < 1
        if ldr.device.type == "cpu" and not below.any():  # to look at it elsewhere would be to wait for it
            continue
        here = _along(field, 0, down[0][rows], down[1][rows])
        shift = here[..., :3] / here[..., 3:].add_(FADE_SHARE)
        part = log_hdr[rows]
        part.copy_(torch.where(below, shift.add_(part.clamp(min=least)), part))


def _box(clipped: Edges, edges: Edges, shape: Sequence[int]) -> tuple[Box, Box, Edges]:
    """The smallest rectangle of whole blocks that holds what is clipped: in pixels, in blocks, and their edges."""
    pixels, blocks, own = [], [], []
    for found, edge, length in zip(clipped, edges, shape, strict=False):
        first, last = np.searchsorted(edge, (found[0], found[-1]), side="right") - (1, 0)
        end = edge[last] if last < len(edge) else length
        pixels.append(slice(int(edge[first]), int(end)))
        blocks.append(slice(int(first), int(last)))
        own.append(edge[first:last] - edge[first])
    return (pixels[0], pixels[1]), (blocks[0], blocks[1]), (own[0], own[1])


def _sums(values: Tensor, starts: np.ndarray, lengths: np.ndarray, axis: int) -> Tensor:
    """Over runs along an axis, some of which may be longer than others by one. Their order is fixed on every device."""
    least = int(lengths.min())
    index = _sent(starts, values)
    total = values.index_select(axis, index)
    for offset in range(1, least):
        total.add_(values.index_select(axis, index + offset))
    if (lengths > least).any():
        longer = _sent((lengths > least).astype(np.float32), values).view((-1, 1, 1) if axis == 0 else (1, -1, 1))
        next_one = (index + least).clamp_(max=values.shape[axis] - 1)
        total.addcmul_(values.index_select(axis, next_one), longer)
    return total


def _between(edge: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `length` pixels the lower of the two blocks whose middles it lies between, and how far along."""
    middle = (edge + np.append(edge[1:], length)) / 2
    position = np.interp(np.arange(length) + 0.5, middle, np.arange(len(edge)))
    lower = np.minimum(position.astype(np.intp), max(len(edge) - 2, 0))
    return lower, (position - lower).astype(np.float32)


def _along(field: Tensor, axis: int, lower: np.ndarray, share: np.ndarray) -> Tensor:
    """`field` between its pixels, linearly, along one axis."""
    index = _sent(lower, field)
    low, high = field.index_select(axis, index), (index + 1).clamp_(max=field.shape[axis] - 1)
    return low.lerp_(field.index_select(axis, high), _sent(share, field).view((-1, 1, 1) if axis == 0 else (1, -1, 1)))


def _sent(numbers: np.ndarray, like: Tensor) -> Tensor:
    """A few numbers, to the device of `like`, without waiting for what that is at."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(like.device, non_blocking=True)
