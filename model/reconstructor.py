"""`Reconstructor`: the network with tiles, a device and a precision → LDR picture in, HDR picture out.

`ClipReconstructor` is the same for the frames of a clip. A picture goes up to the device as it was decoded, and comes
down as it is written; all between is tensor code that does not wait for the device, but for once: what is clipped.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.codes import Codes, as_tensor, bands, display_encoded
from model.constants import LOG_RANGE
from model.device import (
    DTYPES,
    Precision,
    Replayed,
    device_of,
    exact_products,
    memory_of,
    out_of_memory,
    precision_of,
    seconds,
    side_stream,
    up,
)
from model.exposure import Encoding, Transfer, clipped_pixels, exposure_mask
from model.gain_map import OwnLight
from model.masked_unet import MaskedUNet, receptive_radius
from model.rendering import Rendered, Rendering, render
from model.selective import fold, reconstruct_where
from model.tiling import Tile, bytes_per_pixel, clipped_region, largest_tile, plan, whole_region, window
from model.working_size import block_means, match_level, working_edges

AUTO_BUDGET_MAX, AUTO_BUDGET_MIN = 2 << 30, 1 << 29
"""Bytes that "auto" gives the network and the picture on a CPU, at most, and the network, at least."""

CLEARLY_CHEAPER = 0.7
"""Blocks are chosen where they cost this share of a bare pass: near the break-even, one run is to do as the next."""

Computed = dict[Tile, tuple[Tensor, Tensor]]
"""What was computed of a frame: each tile with its input and its log output."""

Span = tuple[np.ndarray, np.ndarray]
"""The rows and the columns in which anything is clipped."""


class Predicted(NamedTuple):
    """A picture on its device, between the network and eq. 1.

    ldr: T, float32 H×W×3. clipped: where a channel's mask is below 1, bool H×W. log_hdr: Y held to LOG_RANGE, float32
    H×W×3, valid where clipped; None where nothing is.
    """

    ldr: Tensor
    clipped: Tensor
    log_hdr: Tensor | None


class Reconstructor:
    """Reconstructs what the camera clipped, in stills; `clip` gives its counterpart for the frames of a clip.

    net: from `load_network`; it is copied, not changed.
    device: "auto" (the first GPU, else the CPU), "cpu", "cuda", "cuda:1", "mps".
    precision: of the weights and features; "auto" is bf16 where the processor has it, fp16 on older GPUs, else fp32.
    tile: side in pixels, rounded up to a multiple of 2^depth; "auto" is the largest that `memory` allows, the whole
        picture where it fits, because small tiles lack context.
    overlap: pixels shared by neighbouring tiles. memory: bytes for the network's features; None: a quarter of the
        machine's but at most 2 GiB, with the picture, or half of a GPU's.
    host_memory: bytes that the machine has, where the caller knows better than `memory_of`.
    gamma, transfer: how T is linearised in eq. 1, unless a Rendering is given.
    working_size: longer side, in pixels, of the reduced picture that sets the level of clipped areas, see
        `model.working_size`; None: the paper's method alone.
    threshold: α of the mask; None: that of the weights.
    notify: is told once when a setting had to be lowered.
    """

    def __init__(
        self,
        net: MaskedUNet,
        device: str = "auto",
        precision: Precision = "auto",
        tile: int | Literal["auto"] = "auto",
        overlap: int = 128,
        *,
        memory: int | None = None,
        host_memory: int | None = None,
        gamma: float = 2.0,
        transfer: Transfer = "gamma",
        working_size: int | None = None,
        threshold: float | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        if tile != "auto" and tile < 1:
            raise ValueError(f"tile must be 'auto' or at least 1 pixel, not {tile}")
        if overlap < 0:
            raise ValueError(f"overlap must not be negative, but is {overlap}")
        if memory is not None and memory < 1:
            raise ValueError(f"memory must be at least 1 byte, not {memory}")
        if working_size is not None and working_size < 1:
            raise ValueError(f"working_size must be at least 1 pixel, not {working_size}")
        if threshold is not None and not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), not {threshold}")
        self.config = net.config
        self.threshold = net.config.mask_threshold if threshold is None else threshold
        self.device = device_of(device)
        self.precision = precision_of(precision, self.device)
        self.dtype = DTYPES[self.precision]
        self.net = copy.deepcopy(net).to(self.device, self.dtype).to(memory_format=torch.channels_last).eval()
        self.net.mean, self.net.std = net.mean.to(self.device), net.std.to(self.device)  # 8-bit steps survive in fp32
        self.net.requires_grad_(False)
        self.folded = fold(net, self.device, self.dtype)
        self.tile, self.overlap, self.memory, self.host_memory = tile, overlap, memory, host_memory
        self.rendering = Rendering(Encoding(transfer, gamma))
        self.working_size = working_size
        self.batch: int | None = None
        self.notify = notify or (lambda _message: None)
        self._replayed = Replayed(self.net, self.notify)
        self._selective: bool | None = True if self.device.type == "cpu" else None

    @property
    def selective(self) -> bool:
        """Whether only the blocks that something clipped needs are run, see `model.selective`.

        On a CPU always. Elsewhere it is measured once, on pictures with 5 % clipped, against a bare pass. Both give the
        same but for rounding.
        """
        if self._selective is None:
            side = -(-512 // self.config.multiple) * self.config.multiple
            images = torch.full((1, side, side, 3), 0.5, device=self.device).permute(0, 3, 1, 2)
            images[..., : side // 4, : side // 5] = 1
            masks = exposure_mask(images, self.threshold).to(self.dtype)
            needed = (masks < 1).any(1)
            with self._running():
                bare = seconds(lambda: self.net(images, masks))
                blocks = seconds(lambda: reconstruct_where(self.net, images, masks, needed, self.folded))
            self._selective = blocks < CLEARLY_CHEAPER * bare
        return self._selective

    def reconstruct(self, ldr: np.ndarray) -> np.ndarray:
        """ldr: float32 H×W×3, display-encoded in [0, 1], any H, W ≥ 1 → float32 H×W×3, scene-linear, LDR white 1.0.

        Finite, never negative; the linearised T bit for bit where the mask is 1. Raises ValueError for another shape or
        for values outside [0, 1].
        """
        return self.render(self.predict(ldr)).fetch().pixels

    def predict_log(self, ldr: np.ndarray) -> np.ndarray | None:
        """Y of eq. 1 held to LOG_RANGE, float32 H×W×3, valid where the mask is below 1; None if it nowhere is.

        ldr: as for `reconstruct`, and so are the errors.
        """
        return _on_host(self.predict(ldr).log_hdr)

    def compose(self, ldr: np.ndarray, log_hdr: np.ndarray | None) -> np.ndarray:
        """Eq. 1 with this reconstructor's transfer and the weights' floor, float32 H×W×3.

        ldr: as `predict_log` took it. log_hdr: what it returned.
        """
        return self.render(self.predicted(ldr, log_hdr)).fetch().pixels

    def predicted(self, ldr: "np.ndarray | Codes", log_hdr: np.ndarray | None) -> Predicted:
        """What `predict` would return, with a Y made elsewhere: of a picture's views, or by another network."""
        with self._running():
            picture = self.upload(ldr)
            log = None if log_hdr is None else as_tensor(log_hdr).to(self.device)
            return Predicted(picture, clipped_pixels(picture, self.threshold), log)

    def clip(self) -> "ClipReconstructor":
        """For the frames of one clip."""
        return ClipReconstructor(self)

    def predict(self, ldr: "np.ndarray | Codes") -> Predicted:
        """What the network makes of a picture. ldr: as for `reconstruct`, or what a decoder gave."""
        return self._predict_frame(ldr, None, None)

    def render(
        self,
        predicted: Predicted,
        rendering: Rendering | None = None,
        own: OwnLight | None = None,
        *,
        half: bool = False,
    ) -> Rendered:
        """What is written of it: float32, or float16 held to its range.

        rendering: None: this reconstructor's. own: what the picture's gain map says, where it has one.
        """
        with self._running():
            how = rendering or self.rendering
            return render(*predicted, how, self.threshold, self.config.floor, own, half=half)

    def upload(self, ldr: "np.ndarray | Codes") -> Tensor:
        """T on the device, float32 H×W×3. Raises ValueError for another shape or for values outside [0, 1]."""
        codes = ldr if isinstance(ldr, Codes) else Codes(np.asarray(ldr, dtype=np.float32))
        values = codes.values
        if values.ndim != 3 or values.shape[2] not in ((1, 3) if codes is ldr else (3,)) or 0 in values.shape:
            raise ValueError(f"expected an H×W×3 picture, not one of shape {values.shape}")
        picture = display_encoded(up(as_tensor(values), self.device), codes.affine)
        if values.dtype == np.float32 and codes.affine is None:
            low, high = torch.stack(torch.aminmax(picture)).tolist()
            if not (low >= 0 and high <= 1):  # also false for NaN
                raise ValueError(f"expected display-encoded values in [0, 1], not {low} to {high}")
        return picture

    def _predict_frame(
        self, ldr: "np.ndarray | Codes", before: Computed | None, small_before: Computed | None
    ) -> Predicted:
        """before, small_before: see `_predict`; of the picture, and of the picture reduced to the working size."""
        with self._running():
            picture, clipped, span = self._arrived(ldr)
            log_hdr = None if span is None else self._predict(picture, clipped, span, before)
            if before is not None and span is None:
                before.clear()
            if (
                span is not None
                and log_hdr is not None
                and self.working_size
                and max(clipped.shape) > self.working_size
            ):
                edges = working_edges(clipped.shape[0], clipped.shape[1], self.working_size)
                small = block_means(lambda rows: picture[rows], edges, picture).clamp_(0, 1)
                small_clipped = clipped_pixels(small, self.threshold)
                small_span = _span(small_clipped) if self.selective else _all(small_clipped)
                if small_span is not None:
                    small_log = self._predict(small, small_clipped, small_span, small_before)
                    least = math.log(2) if self.config.floor else LOG_RANGE[0]
                    match_level(log_hdr, picture, span, small_log, small, edges, self.threshold, least)
                    log_hdr.clamp_(*LOG_RANGE)
            return Predicted(picture, clipped, log_hdr)

    def _arrived(self, ldr: "np.ndarray | Codes") -> tuple[Tensor, Tensor, Span | None]:
        """T, where it is clipped, and where that lies, which is waited for, while the frame before is computed."""
        with ExitStack() as aside:
            if self.device.type == "cuda":
                aside.enter_context(torch.cuda.stream(side_stream(self.device, "up")))
            picture = self.upload(ldr)
            clipped = clipped_pixels(picture, self.threshold)
            span = _span(clipped)
        if self.device.type == "cuda":  # what was made there has been waited for
            for made in (picture, clipped):
                made.record_stream(torch.cuda.current_stream(self.device))
        return picture, clipped, span

    @contextmanager
    def _running(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.device.type == "cuda":
                stack.enter_context(torch.cuda.device(self.device))
                if self.precision == "fp32":
                    stack.enter_context(exact_products())
            yield

    def _predict(self, ldr: Tensor, clipped: Tensor, span: Span, before: Computed | None) -> Tensor:
        """Y as the network sees it at this size.

        before: of the frame before in the clip, replaced by what is computed here; None for a still.
        """
        height, width = clipped.shape
        # A clip's frames have one shape on a device that runs them whole: what is done again and again can be replayed.
        is_constant = before is not None and not self.selective
        region = (
            whole_region(height, width, self.config)
            if is_constant
            else clipped_region(*span, clipped.shape, self.config)
        )
        kept: Computed = {}
        lowered = ""
        while True:
            kept.clear()
            try:
                log_hdr = self._blend(ldr, clipped, region, before or {}, None if before is None else kept)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if not self._replayed.forget() and not (lowered := self._lower(region, ldr)):
                    raise
            if self.device.type == "cuda":  # now that nothing refers to what the error has broken off
                torch.cuda.empty_cache()
        if lowered:
            self.notify(f"{self.device} ran out of memory: going on with {lowered}.")
        if before is not None:
            before.clear()
            before.update(kept)
        return log_hdr

    def _blend(self, ldr: Tensor, clipped: Tensor, region: Tile, before: Computed, kept: Computed | None) -> Tensor:
        """Tiles of the region, blended in the log domain with windows that sum to one."""
        multiple, reach = self.config.multiple, receptive_radius(self.config)
        tile = self._tile(region, ldr)
        overlap = min(self.overlap, max(tile - multiple, 0))
        tiles = plan(region, tile, overlap, multiple)
        if len(tiles) > 1:
            wanted = torch.stack([clipped[one.inside(*clipped.shape)].any() for one in tiles]).tolist()
            tiles = [one for one, is_wanted in zip(tiles, wanted, strict=True) if is_wanted]
        log_hdr = torch.zeros_like(ldr)
        if len(tiles) == 1:
            ((_, log_tile),) = self._run(ldr, clipped, tiles, before, kept)
            log_hdr[tiles[0].inside(*clipped.shape)] = log_tile
            return log_hdr
        weights = torch.zeros((*clipped.shape, 1), device=ldr.device)
        for one, log_tile in self._run(ldr, clipped, tiles, before, kept):
            inside = one.inside(*clipped.shape)
            weight = torch.from_numpy(window(one, region, -(-overlap // multiple) * multiple, reach)).to(ldr.device)
            weight = weight[: log_tile.shape[0], : log_tile.shape[1], None]
            log_hdr[inside].addcmul_(log_tile, weight)
            weights[inside] += weight
        return log_hdr.div_(weights.masked_fill_(weights == 0, 1))

    def _run(
        self, ldr: Tensor, clipped: Tensor, tiles: list[Tile], before: Computed, kept: Computed | None
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Each tile with its log output, cut to the picture.

        before: tiles of the frame before. kept: gets those of this one; None for a still. To compare is to wait for the
        device, so it is only done where running costs more.
        """
        if not self.selective:
            kept = None
        changed = []
        for one in tiles:
            part = ldr[one.inside(*clipped.shape)]
            if kept is not None and one in before and _same(before[one][0], part):
                kept[one] = before[one]
                yield one, before[one][1]
            else:
                changed.append(one)
        size = self.batch or self._batch(tiles[0], ldr)
        for start in range(0, len(changed), size):
            group = changed[start : start + size]
            images, masks, needed = self._tiles(ldr, clipped, group)
            if self.selective:
                output = reconstruct_where(self.net, images, masks, needed, self.folded)
            else:
                output = self._replayed(images, masks)
            output = output.float().masked_fill_(~needed[:, None], 0).clamp_(*LOG_RANGE).permute(0, 2, 3, 1)
            for one, log_tile in zip(group, output, strict=True):
                rows, columns = one.inside(*clipped.shape)
                log_tile = log_tile[: rows.stop - rows.start, : columns.stop - columns.start]
                if kept is not None:
                    kept[one] = ldr[rows, columns].clone(), log_tile
                yield one, log_tile

    def _tiles(self, ldr: Tensor, clipped: Tensor, tiles: list[Tile]) -> tuple[Tensor, Tensor, Tensor]:
        """The tiles: T and M as (N, 3, H, W), channels last, and (N, H, W), where eq. 1 will take Y.

        Past the picture's edge M is 0, so that the network ignores what is there, and nothing is taken.
        """
        shape = (len(tiles), tiles[0].height, tiles[0].width)
        images = ldr.new_empty((*shape, 3))
        masks = ldr.new_empty((*shape, 3), dtype=self.dtype)
        needed = clipped.new_empty(shape)
        mean = self.net.mean.flatten()
        for image, mask, need, one in zip(images, masks, needed, tiles, strict=True):
            inside = one.inside(*clipped.shape)
            part = ldr[inside]
            height, width = part.shape[:2]
            for edge in ((slice(height, None),), (slice(height), slice(width, None))):
                image[edge], mask[edge], need[edge] = mean, 0, False
            need[:height, :width] = clipped[inside]
            for rows in bands(part):
                image[rows, :width] = part[rows]
                mask[rows, :width] = exposure_mask(part[rows], self.threshold)
        return images.permute(0, 3, 1, 2), masks.permute(0, 3, 1, 2), needed

    def _tile(self, region: Tile, ldr: Tensor) -> int:
        if self.tile != "auto":
            return -(-self.tile // self.config.multiple) * self.config.multiple
        return largest_tile(region, self._budget(ldr), self.config, self.dtype.itemsize)

    def _batch(self, tile: Tile, ldr: Tensor) -> int:
        if self.device.type == "cpu":
            return 1
        each = bytes_per_pixel(self.config, self.dtype.itemsize) * tile.height * tile.width
        return max(1, int(self._budget(ldr) / each))

    def _budget(self, ldr: Tensor) -> float:
        """Bytes for the network's features."""
        if self.memory is not None:
            return self.memory
        if self.device.type == "cuda":
            return memory_of(self.device, self.host_memory) / 2
        # A huge picture takes memory itself, as its source and its result.
        return max(min(memory_of(self.device, self.host_memory) / 4, AUTO_BUDGET_MAX) - 2 * ldr.nbytes, AUTO_BUDGET_MIN)

    def _lower(self, region: Tile, ldr: Tensor) -> str:
        """After running out of memory: one tile at a time, then half the tile; what it is now, or "" where no less is.

        The picture's own memory is not in the budget, so that there is no telling what will fit but by trying.
        """
        side, least = self._tile(region, ldr), 2 * self.config.multiple
        one = Tile(0, 0, min(side, region.height), min(side, region.width))
        several = len(plan(region, side, min(self.overlap, max(side - self.config.multiple, 0)), self.config.multiple))
        if min(self.batch or self._batch(one, ldr), several) > 1:
            self.batch = 1
            return "one tile at a time" if self.tile == "auto" else f"tiles of {side} pixels, one at a time"
        if side <= least:
            return ""
        self.tile = max(side // 2, least)
        return f"tiles of {self.tile} pixels"


class ClipReconstructor:
    """The frames of one clip: a tile that is as in the frame before is not computed again.

    It shares the network of the Reconstructor whose `clip` made it, and keeps one frame's tiles, input and output.
    Each frame gives what it gives as a still, whatever came before it, but for rounding on a device that runs whole
    frames. For one thread at a time.
    """

    def __init__(self, reconstructor: Reconstructor) -> None:
        self._reconstructor = reconstructor
        self._before: Computed = {}
        self._small_before: Computed = {}

    def reconstruct(self, ldr: np.ndarray) -> np.ndarray:
        """As `Reconstructor.reconstruct`."""
        return self._reconstructor.render(self.predict(ldr)).fetch().pixels

    def predict_log(self, ldr: np.ndarray) -> np.ndarray | None:
        """As `Reconstructor.predict_log`."""
        return _on_host(self.predict(ldr).log_hdr)

    def predict(self, ldr: "np.ndarray | Codes") -> Predicted:
        """As `Reconstructor.predict`."""
        return self._reconstructor._predict_frame(ldr, self._before, self._small_before)


def _span(clipped: Tensor) -> Span | None:
    """Where the device is waited for; None where nothing is clipped."""
    there = clipped.view(torch.uint8)
    rows, columns = torch.cat((there.amax(1), there.amax(0))).cpu().split(clipped.shape)
    if not rows.any():
        return None
    return np.flatnonzero(rows.numpy()), np.flatnonzero(columns.numpy())


def _all(clipped: Tensor) -> Span:
    return np.arange(clipped.shape[0]), np.arange(clipped.shape[1])


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two pictures are equal; a few rows tell most of those apart that are not."""
    return torch.equal(one[::64], other[::64]) and torch.equal(one, other)


def _on_host(picture: Tensor | None) -> np.ndarray | None:
    return None if picture is None else picture.cpu().numpy()
