"""The same forward pass, run only where something downstream needs it.

Eq. 1 takes the network's output only where a pixel is clipped. The encoder runs once over the whole picture, its masks
only where something near is clipped; each decoder level runs on the blocks that hold an output which the next level
reads. What is computed there equals `MaskedUNet.forward` up to rounding, and no full-size feature map of the decoder is
ever held.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.masked_unet import MaskedConv, MaskedUNet, activate

BLOCK = 64
"""Side of a block in pixels of its own level. A rim around it is computed and thrown away."""

BLOCKS_PER_BATCH = 4
"""Blocks in one convolution: enough to fill a processor, few enough to stay in its cache."""

BORDER_MARGIN = 4
"""How many pixels of a level, at its edge, the zeros around the picture can have darkened; two, and some to spare."""

RIM = 2
"""Pixels around a block: one is read by its convolution; two, so that the level below is cut at a whole pixel."""


class Folded(NamedTuple):
    """The filters of a decoder level, for maps that have not been enlarged.

    Nearest ×2 and a 3×3 filter make each pixel from 2×2 of the small map: one transposed convolution of 4×4, stride 2,
    with 4 products where there were 9. own: (C, C′, 4, 4), of the features from below; skip: (C′, C_skip, 3, 3);
    mask_own, mask_skip: the same of eq. 4, the latter summed over its inputs where all skips share one mask.
    """

    own: Tensor
    skip: Tensor
    bias: Tensor | None
    mask_own: Tensor
    mask_skip: Tensor


def fold(net: MaskedUNet, device: torch.device, dtype: torch.dtype) -> list[Folded] | None:
    """For `reconstruct_where`, from weights in full precision; None for gated convolutions, which stay as they are."""
    if net.config.masking == "gated":
        return None
    channels, folded = net.config.channels(), []
    for level, layer in enumerate(net.decoder):
        filters, inputs = [], channels[level + 1]
        with torch.no_grad():
            for weight in (layer.conv.weight.float(), layer.mask_filter().float()):
                # Each tap of the small filter is the sum of the large one's that fall upon it.
                around = F.pad(weight[:, :inputs].flip(2, 3), (1, 1, 1, 1))
                own = sum(around[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1))
                filters += [own.transpose(0, 1), weight[:, inputs:]]  # type: ignore[union-attr]  # no empty sum
            if net.config.skip_mask == "ones":
                filters[3] = filters[3].sum(1, keepdim=True)
            own, skip, mask_own, mask_skip = (
                one.to(device, dtype).contiguous(memory_format=torch.channels_last) for one in filters
            )
            bias = None if layer.conv.bias is None else layer.conv.bias.to(device, dtype)
            folded.append(Folded(own, skip, bias, mask_own, mask_skip))
    return folded


def reconstruct_where(
    net: MaskedUNet, ldr: Tensor, mask: Tensor, needed: Tensor, folded: Sequence[Folded] | None = None
) -> Tensor:
    """Y of eq. 1, (N, 3, H, W), valid where `needed`, undefined elsewhere.

    ldr, mask: (N, 3, H, W), as for `MaskedUNet.forward`. needed: bool (N, H, W). folded: the decoder's filters, from
    `fold`, where there are any.
    """
    features, masks = net.encode(ldr, mask, lambda mask: encoder_masks(net, mask))
    wanted = _wanted(needed[:, None], net.config.depth)
    x, x_mask = features.pop(), masks.pop()
    for level in reversed(range(net.config.depth)):
        own = folded[level] if folded is not None else None
        x, x_mask = _decode(net, own, level, x, x_mask, features.pop(), masks.pop(), wanted[level])
    return x


def encoder_masks(net: MaskedUNet, mask: Tensor) -> Iterator[Tensor]:
    """What `MaskedUNet.encoder_masks` gives, with eq. 4 run only on blocks that something clipped reaches.

    Away from those a mask is what that of a small picture without anything clipped is, with its middle repeated.
    """
    yield mask
    levels = min(net.config.depth, 4)  # deeper maps are smaller than what is saved
    small = mask.new_ones(1, mask.shape[1], *(min(side, (2 * BORDER_MARGIN + 2) << levels) for side in mask.shape[2:]))
    reached = (mask < 1).any(1, keepdim=True)
    for level, layer in enumerate(net.encoder):
        reached = _spread(reached, layer.conv.kernel_size[0], layer.conv.stride[0])
        if level >= levels or _blocks(reached, BLOCK).float().mean() > 0.6:
            levels = 0
            mask = layer.update(mask)
        else:
            small = layer.update(small)
            mask = _updated(layer, mask, _grown(small, reached.shape), reached)
        yield mask


def _spread(there: Tensor, kernel: int, stride: int) -> Tensor:
    """Where a convolution reads anything of `there`, bool (N, 1, H, W). As max pooling, and many times as fast."""
    for axis in (2, 3):
        size = there.shape[axis]
        padding = [0, 0, kernel // 2, kernel // 2] if axis == 2 else [kernel // 2, kernel // 2]
        there = F.pad(there, padding)
        there = _either(
            there.narrow(axis, start, size)[(slice(None),) * axis + (slice(None, None, stride),)]
            for start in range(kernel)
        )
    return there


def _blocks(there: Tensor, side: int) -> Tensor:
    """Which blocks hold anything of `there`, bool (N, 1, H, W); those at the far edges may be smaller."""
    height, width = there.shape[2:]
    there = F.pad(there, (0, -width % side, 0, -height % side))
    return there.unflatten(3, (-1, side)).any(4).unflatten(2, (-1, side)).any(3)


def _either(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.logical_or, parts)


def _grown(small: Tensor, shape: torch.Size) -> Tensor:
    """`small` (1, C, h, w) with its middle row and column repeated up to the (N, 1, H, W) of `shape`."""
    count, _, height, width = shape
    surplus = width - small.shape[3]
    if surplus > 0:
        middle = small[:, :, :, BORDER_MARGIN : BORDER_MARGIN + 1].expand(-1, -1, -1, surplus)
        small = torch.cat((small[:, :, :, :BORDER_MARGIN], middle, small[:, :, :, BORDER_MARGIN:]), 3)
    channels, rows = small.shape[1:3]
    grown = small.new_empty(count, height, width, channels).permute(0, 3, 1, 2)
    top = min(BORDER_MARGIN, height)
    bottom = max(height - rows, 0) + top  # from here on, the rows of `small` again
    grown[:, :, :top] = small[:, :, :top]
    grown[:, :, top:bottom] = small[:, :, top : top + 1]
    grown[:, :, bottom:] = small[:, :, top:]
    return grown


def _updated(layer: MaskedConv, mask: Tensor, out: Tensor, reached: Tensor) -> Tensor:
    """`out`, with what eq. 4 makes of `mask` in the blocks that are reached."""
    kernel = layer.conv.kernel_size[0]
    padding, side = kernel // 2, 2 * BLOCK + kernel - 2
    height, width = out.shape[2:]
    weight = layer.mask_filter()
    for places in _places(reached):
        doubled = [(n, 2 * top, 2 * left) for n, top, left in places]
        blocks = F.conv2d(_cut(mask, doubled, 1, padding, side), weight, None, layer.conv.stride)
        for block, (n, top, left) in zip(blocks, places, strict=True):
            rows, columns = min(BLOCK, height - top), min(BLOCK, width - left)
            out[n, :, top : top + rows, left : left + columns] = block[:, :rows, :columns]
    return out


def _wanted(needed: Tensor, depth: int) -> list[Tensor]:
    """What each level must give, at its own resolution: a convolution reads one pixel around, then it is halved."""
    wanted = [needed]
    for _ in range(depth - 1):
        wanted.append(_blocks(_spread(wanted[-1], 3, 1), 2))
    return wanted


def _level(
    net: MaskedUNet,
    folded: Folded | None,
    level: int,
    x: Tensor,
    mask: Tensor | None,
    skip: Tensor,
    skip_mask: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """`MaskedUNet.decode_level`, with folded filters where there are any; shapes as there."""
    if folded is None:
        return net.decode_level(level, x, mask, skip, skip_mask)
    if mask is not None:
        x = x * mask  # (N, D, H/2, W/2)
    if skip_mask is not None and net.config.skip_mask == "encoder":
        skip = skip * skip_mask  # (N, C, H, W)
    y = F.conv2d(skip, folded.skip, folded.bias, 1, 1)  # (N, C, H, W)
    y.add_(F.conv_transpose2d(x, folded.own, None, 2, 1))  # (N, D, H/2, W/2) → (N, C, H, W)
    if level == 0:
        return y, None
    updated = None
    if mask is not None and skip_mask is not None:
        updated = F.conv_transpose2d(mask, folded.mask_own, None, 2, 1)  # (N, D, H/2, W/2) → (N, C, H, W)
        updated.add_(F.conv2d(skip_mask, folded.mask_skip, None, 1, 1))  # (N, C or 1, H, W) → (N, C, H, W)
    return activate(y, net.config.decoder_activation), updated


def _decode(
    net: MaskedUNet,
    folded: Folded | None,
    level: int,
    x: Tensor,
    mask: Tensor | None,
    skip: Tensor,
    skip_mask: Tensor | None,
    wanted: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """One decoder level in blocks, or whole where that is a block or two."""
    height, width = skip.shape[2:]
    if height * width <= 4 * BLOCK**2:
        return _level(net, folded, level, x, mask, skip, skip_mask)
    low, own = (RIM // 2, BLOCK // 2 + RIM), (RIM, BLOCK + 2 * RIM)
    channels = net.config.channels()[level]
    out = skip.new_empty(len(skip), height + BLOCK, width + BLOCK, channels).permute(0, 3, 1, 2)
    out_mask = torch.empty_like(out) if mask is not None and level > 0 else None
    for places in _places(wanted):
        y, y_mask = _level(
            net,
            folded,
            level,
            _cut(x, places, 2, *low),
            None if mask is None else _cut(mask, places, 2, *low),
            _cut(skip, places, 1, *own),
            None if skip_mask is None else _cut(skip_mask, places, 1, *own),
        )
        _paste(out, y, places)
        if out_mask is not None and y_mask is not None:
            _paste(out_mask, y_mask, places)
    crop = (slice(None), slice(None), slice(height), slice(width))
    return out[crop], None if out_mask is None else out_mask[crop]


def _places(wanted: Tensor) -> Iterator[list[tuple[int, int, int]]]:
    """Picture, top and left of every block that is wanted, a few at a time."""
    places = [(n, row * BLOCK, column * BLOCK) for n, row, column in _blocks(wanted, BLOCK)[:, 0].nonzero().tolist()]
    for start in range(0, len(places), BLOCKS_PER_BATCH):
        yield places[start : start + BLOCKS_PER_BATCH]


def _cut(x: Tensor, places: list[tuple[int, int, int]], scale: int, rim: int, side: int) -> Tensor:
    """The blocks at `places`, side × side with their rim, of a map whose resolution is 1/scale of the level's.

    Around the map lie zeros, as the convolution's own padding would have them.
    """
    height, width = x.shape[2:]
    blocks = []
    for n, top, left in places:
        top, left = top // scale - rim, left // scale - rim
        block = x[n : n + 1, :, max(top, 0) : top + side, max(left, 0) : left + side]
        outside = max(-left, 0), max(left + side - width, 0), max(-top, 0), max(top + side - height, 0)
        blocks.append(F.pad(block, outside) if any(outside) else block)
    return torch.cat(blocks).contiguous(memory_format=torch.channels_last)


def _paste(out: Tensor, blocks: Tensor, places: list[tuple[int, int, int]]) -> None:
    for block, (n, top, left) in zip(blocks, places, strict=True):
        out[n, :, top : top + BLOCK, left : left + BLOCK] = block[:, RIM : RIM + BLOCK, RIM : RIM + BLOCK]
