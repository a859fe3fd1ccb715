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
from torch.nn.functional import max_pool2d

from model.codes import bands
from model.exposure import exposure_mask

WORKING_SIZE = 512
"""Pixels of the longer side: training cuts views of 35 to 110 degrees at 256 to 512 pixels."""

MIN_CLIPPED_SHARE = 1e-3  # share of a reduced pixel that must be clipped for its level to be asked for
FADE_SHARE = 0.02  # of a reduced pixel: where no neighbour has more clipped, the correction fades out
REACH = 3  # blocks beyond a block that decide its level: one of `_between`, and one for each time that it is smoothed

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
        return torch.cat((log_hdr[rows].clamp(min=least).mul_(weight), weight, weight.amin(2, keepdim=True)), 2)

    full = block_means(weighted, edges, ldr)
    level, share, blind = full[..., :3], full[..., 3:6], full[..., 6:]
    amount = torch.minimum(share, 1 - exposure_mask(small_ldr, threshold)) * (share >= MIN_CLIPPED_SHARE)
    level = level / share.clamp(min=MIN_CLIPPED_SHARE)
    change = small_log.clamp(min=least) - level
    field = _smoothed(torch.cat((amount * change, amount * level, amount), 2))
    change, level = (field[..., :6] / field[..., 6:].repeat(1, 1, 2).clamp_(min=1e-6)).split(3, 2)
    most = max_pool2d(amount.permute(2, 0, 1), 3, 1, 1).permute(1, 2, 0)
    change = change * (most / (most + FADE_SHARE))
    blind = _smoothed(_smoothed(blind)).mul_(2).sub_(1).clamp_(min=0)
    blind = blind * blind * (3 - 2 * blind)
    field = torch.cat((change + blind * level, 1 - blind), 2)
    down, across = (_between(edge, length) for edge, length in zip(edges, (height, width), strict=True))
    field = _along(field, 1, across)
    for rows in bands(ldr):
        below = exposure_mask(ldr[rows], threshold) < 1
        if ldr.device.type == "cpu" and not below.any():  # to look at it elsewhere would be to wait for it
            continue
        here = _along(field, 0, [(lower[rows], share[rows]) for lower, share in down])
        part = log_hdr[rows]
        matched = torch.addcmul(here[..., :3], part.clamp(min=least), here[..., 3:])
        part.copy_(torch.where(below, matched, part))


def _box(clipped: Edges, edges: Edges, shape: Sequence[int]) -> tuple[Box, Box, Edges]:
    """The smallest rectangle of whole blocks that decides what is clipped: in pixels, in blocks, and their edges."""
    pixels, blocks, own = [], [], []
    for found, edge, length in zip(clipped, edges, shape, strict=False):
        first, last = np.searchsorted(edge, (found[0], found[-1]), side="right") - (1, 0) + (-REACH, REACH)
        first, last = max(first, 0), min(last, len(edge))
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


def _smoothed(field: Tensor) -> Tensor:
    """`field` weighted 1, 2, 1 along both axes, which removes what alternates from pixel to pixel."""
    for axis in (0, 1):
        last = field.shape[axis] - 1
        middle = torch.arange(last + 1, device=field.device)
        before, after = (field.index_select(axis, (middle + step).clamp_(0, last)) for step in (-1, 1))
        field = before.add_(after).mul_(0.5).add_(field).mul_(0.5)
    return field


def _between(edge: np.ndarray, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each of `length` pixels three blocks, and their shares in it: the quadratic B-spline, which has no kinks."""
    middle = (edge + np.append(edge[1:], length)) / 2
    position = np.interp(np.arange(length) + 0.5, middle, np.arange(len(edge)))
    nearest = np.rint(position).astype(np.intp)
    off = position - nearest
    shares = (0.5 - off) ** 2 / 2, 0.75 - off**2, (0.5 + off) ** 2 / 2
    blocks = (np.clip(nearest + step, 0, len(edge) - 1) for step in (-1, 0, 1))
    return [(block, share.astype(np.float32)) for block, share in zip(blocks, shares, strict=True)]


def _along(field: Tensor, axis: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    """`field` between its pixels, along one axis. parts: which of them, and how much of each."""
    total = None
    for block, share in parts:
        part = field.index_select(axis, _sent(block, field))
        weight = _sent(share, field).view((-1, 1, 1) if axis == 0 else (1, -1, 1))
        total = part.mul_(weight) if total is None else total.addcmul_(part, weight)
    assert total is not None
    return total


def _sent(numbers: np.ndarray, like: Tensor) -> Tensor:
    """A few numbers, to the device of `like`, without waiting for what that is at."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(like.device, non_blocking=True)
