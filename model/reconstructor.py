"""`Reconstructor`: the network with tiles, a device and a precision → LDR picture in, HDR picture out.

`ClipReconstructor` is the same for the frames of a clip.
"""

import copy
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from model.constants import LOG_RANGE
from model.exposure import Encoding, Transfer, compose_hdr, exposure_mask, linearise
from model.masked_unet import MaskedUNet, receptive_radius
from model.selective import fold, reconstruct_where
from model.tiling import Tile, bytes_per_pixel, clipped_region, largest_tile, plan, window
from model.working_size import block_means, match_level, working_edges

Precision = Literal["auto", "fp32", "bf16", "fp16"]

AUTO_BUDGET_MAX, AUTO_BUDGET_MIN = 2 << 30, 1 << 29
"""Bytes that "auto" gives the network and the picture on a CPU, at most, and the network, at least."""

Computed = dict[Tile, tuple[np.ndarray, np.ndarray]]
"""What was computed of a frame: each tile with its input and its log output."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Reconstructor:
    """Reconstructs what the camera clipped, in stills; `clip` gives its counterpart for the frames of a clip.

    net: from `load_network`; it is copied, not changed.
    device: "auto" (the first GPU, else the CPU), "cpu", "cuda", "cuda:1", "mps".
    precision: of the weights and features; "auto" is bf16 where the processor has it, fp16 on older GPUs, else fp32.
    tile: side in pixels, rounded up to a multiple of 2^depth; "auto" is the largest that `memory` allows, the whole
        picture where it fits, because small tiles lack context.
    overlap: pixels shared by neighbouring tiles. memory: bytes for the network's features; None: a quarter of the
        machine's but at most 2 GiB, with the picture, or half of a GPU's.
    gamma, transfer: how T is linearised in eq. 1.
    working_size: longer side, in pixels, of the reduced picture that sets the level of clipped areas, see
        `model.working_size`; None: the paper's method alone.
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
        gamma: float = 2.0,
        transfer: Transfer = "gamma",
        working_size: int | None = None,
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
        self.config = net.config
        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        self.dtype = _DTYPES[self.precision]
        self.net = copy.deepcopy(net).to(self.device, self.dtype).to(memory_format=torch.channels_last).eval()
        self.net.mean, self.net.std = net.mean.to(self.device), net.std.to(self.device)  # 8-bit steps survive in fp32
        self.net.requires_grad_(False)
        self.folded = fold(net, self.device, self.dtype)
        self.tile, self.overlap, self.memory = tile, overlap, memory
        self.gamma, self.transfer = gamma, transfer
        self.working_size = working_size
        self.batch: int | None = None
        self.notify = notify or (lambda _message: None)

    def reconstruct(self, ldr: np.ndarray) -> np.ndarray:
        """ldr: float32 H×W×3, display-encoded in [0, 1], any H, W ≥ 1 → float32 H×W×3, scene-linear, LDR white 1.0.

        Finite, never negative; equal to T^γ bit for bit where the mask is 1. Raises ValueError for another shape or
        for values outside [0, 1].
        """
        return self.compose(ldr, self.predict_log(ldr))

    def compose(self, ldr: np.ndarray, log_hdr: np.ndarray | None, encoding: Encoding | None = None) -> np.ndarray:
        """Eq. 1 with the weights' floor, float32 H×W×3.

        ldr: as `predict_log` took it. log_hdr: what it returned, whose memory is used for the result. encoding: of ldr;
        None: this reconstructor's transfer and gamma.
        """
        ldr = np.ascontiguousarray(ldr, dtype=np.float32)
        encoding = encoding or Encoding(self.transfer, self.gamma)
        transfer, gamma = encoding.transfer, encoding.gamma
        if log_hdr is None:
            return linearise(ldr, transfer, gamma)
        for rows in _bands(ldr):
            mask = exposure_mask(ldr[rows], self.config.mask_threshold)
            if mask.min() < 1:
                log_hdr[rows] = compose_hdr(
                    ldr[rows], mask, log_hdr[rows], gamma, transfer=transfer, floor=self.config.floor
                )
            else:
                log_hdr[rows] = linearise(ldr[rows], transfer, gamma)
        return log_hdr

    def predict_log(self, ldr: np.ndarray) -> np.ndarray | None:
        """Y of eq. 1 held to LOG_RANGE, float32 H×W×3, valid where the mask is below 1; None if it nowhere is.

        ldr: as for `reconstruct`, and so are the errors.
        """
        return self._predict_log(ldr, None, None)

    def clip(self) -> "ClipReconstructor":
        """For the frames of one clip."""
        return ClipReconstructor(self)

    def _predict_log(
        self, ldr: np.ndarray, before: Computed | None, small_before: Computed | None
    ) -> np.ndarray | None:
        """before, small_before: see `_predict`; of the picture, and of the picture reduced to the working size."""
        ldr = _checked(ldr)
        clipped = self._clipped(ldr)
        log_hdr = self._predict(ldr, clipped, before)
        if log_hdr is not None and self.working_size and max(log_hdr.shape) > self.working_size:
            edges = working_edges(ldr, self.working_size)
            small = block_means(lambda rows: ldr[rows], edges, *ldr.shape[:2]).clip(0, 1)
            small_log = self._predict(small, self._clipped(small), small_before)
            if small_log is not None:
                least = math.log(2) if self.config.floor else LOG_RANGE[0]
                match_level(log_hdr, ldr, clipped, small_log, small, edges, self.config.mask_threshold, least)
                np.clip(log_hdr, *LOG_RANGE, out=log_hdr)
        return log_hdr

    def _clipped(self, ldr: np.ndarray) -> np.ndarray:
        """Where a channel's mask is below 1, bool H×W."""
        clipped = np.empty(ldr.shape[:2], bool)
        for rows in _bands(ldr):
            np.any(exposure_mask(ldr[rows], self.config.mask_threshold) < 1, axis=2, out=clipped[rows])
        return clipped

    def _predict(self, ldr: np.ndarray, clipped: np.ndarray, before: Computed | None) -> np.ndarray | None:
        """Y as the network sees it at this size; None where nothing is clipped.

        before: of the frame before in the clip, replaced by what is computed here; None for a still.
        """
        region = clipped_region(clipped, self.config)
        kept: Computed = {}
        log_hdr = None
        while region is not None and log_hdr is None:
            kept.clear()
            try:
                log_hdr = self._blend(ldr, clipped, region, before or {}, None if before is None else kept)
            except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises the bare class
                if not _out_of_memory(error) or not self._lower(region, ldr):
                    raise
        if before is not None:
            before.clear()
            before.update(kept)
        return log_hdr

    def _blend(
        self, ldr: np.ndarray, clipped: np.ndarray, region: Tile, before: Computed, kept: Computed | None
    ) -> np.ndarray:
        """Tiles of the region, blended in the log domain with windows that sum to one."""
        multiple, reach = self.config.multiple, receptive_radius(self.config)
        tile = self._tile(region, ldr)
        overlap = min(self.overlap, max(tile - multiple, 0))
        tiles = [t for t in plan(region, tile, overlap, multiple) if clipped[t.inside(*clipped.shape)].any()]
        log_hdr = np.zeros_like(ldr)
        if len(tiles) == 1:
            ((_, log_tile),) = self._run(ldr, clipped, tiles, before, kept)
            log_hdr[tiles[0].inside(*clipped.shape)] = log_tile
            return log_hdr
        weights = np.zeros(clipped.shape, np.float32)
        for one, log_tile in self._run(ldr, clipped, tiles, before, kept):
            inside = one.inside(*clipped.shape)
            weight = window(one, region, -(-overlap // multiple) * multiple, reach)
            weight = weight[: log_tile.shape[0], : log_tile.shape[1]]
            log_hdr[inside] += log_tile * weight[..., None]
            weights[inside] += weight
        return np.divide(log_hdr, weights[..., None], out=log_hdr, where=weights[..., None] > 0)

    def _run(
        self, ldr: np.ndarray, clipped: np.ndarray, tiles: list[Tile], before: Computed, kept: Computed | None
    ) -> Iterator[tuple[Tile, np.ndarray]]:
        """Each tile with its log output, cut to the picture.

        before: tiles of the frame before. kept: gets those of this one; None for a still.
        """
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
            with torch.inference_mode():
                images, masks, needed = self._upload(ldr, clipped, group)
                output = (
                    reconstruct_where(self.net, images, masks, needed, self.folded)
                    .float()
                    .masked_fill_(~needed[:, None], 0)
                    .clamp_(*LOG_RANGE)
                    .permute(0, 2, 3, 1)
                    .cpu()
                    .numpy()
                )
            for one, log_tile in zip(group, output, strict=True):
                rows, columns = one.inside(*clipped.shape)
                log_tile = log_tile[: rows.stop - rows.start, : columns.stop - columns.start]
                if kept is not None:
                    kept[one] = ldr[rows, columns].copy(), log_tile
                yield one, log_tile

    def _upload(
        self, ldr: np.ndarray, clipped: np.ndarray, tiles: list[Tile]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tiles on the device: T and M as (N, 3, H, W), channels last, and (N, H, W), where eq. 1 will take Y.

        Past the picture's edge M is 0, so that the network ignores what is there, and nothing is taken.
        """
        shape = (len(tiles), tiles[0].height, tiles[0].width)
        pinned = self.device.type == "cuda"
        images = torch.empty((*shape, 3), pin_memory=pinned)
        masks = torch.empty((*shape, 3), pin_memory=pinned, dtype=self.dtype)
        needed = torch.zeros(shape, pin_memory=pinned, dtype=torch.bool)
        mean = self.net.mean.flatten().cpu()
        for slot, one in enumerate(tiles):
            part = ldr[one.inside(*clipped.shape)]
            height, width = part.shape[:2]
            for edge in (images[slot, height:], images[slot, :height, width:]):
                edge[:] = mean
            for edge in (masks[slot, height:], masks[slot, :height, width:]):
                edge.zero_()
            needed[slot, :height, :width] = torch.from_numpy(clipped[one.inside(*clipped.shape)])
            for rows in _bands(part):
                images[slot, rows, :width] = torch.from_numpy(part[rows])
                masks[slot, rows, :width] = torch.from_numpy(exposure_mask(part[rows], self.config.mask_threshold))
        images, masks = images.permute(0, 3, 1, 2), masks.permute(0, 3, 1, 2)
        device = self.device
        return (
            images.to(device, non_blocking=pinned),
            masks.to(device, non_blocking=pinned),
            needed.to(device, non_blocking=pinned),
        )

    def _tile(self, region: Tile, ldr: np.ndarray) -> int:
        if self.tile != "auto":
            return -(-self.tile // self.config.multiple) * self.config.multiple
        return largest_tile(region, self._budget(ldr), self.config, self.dtype.itemsize)

    def _batch(self, tile: Tile, ldr: np.ndarray) -> int:
        if self.device.type == "cpu":
            return 1
        each = bytes_per_pixel(self.config, self.dtype.itemsize) * tile.height * tile.width
        return max(1, int(self._budget(ldr) / each))

    def _budget(self, ldr: np.ndarray) -> float:
        """Bytes for the network's features."""
        if self.memory is not None:
            return self.memory
        if self.device.type == "cuda":
            return _memory(self.device) / 2
        # A huge picture takes memory itself, as its source and its result.
        return max(min(_memory(self.device) / 4, AUTO_BUDGET_MAX) - 2 * ldr.nbytes, AUTO_BUDGET_MIN)

    def _lower(self, region: Tile, ldr: np.ndarray) -> bool:
        """After running out of memory: half the batch, then half the tile. False when nothing is left to lower."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        tile = self._tile(region, ldr)
        batch = self.batch or self._batch(Tile(0, 0, min(tile, region.height), min(tile, region.width)), ldr)
        if batch > 1:
            self.batch = batch // 2
            self.notify(f"{self.device} ran out of memory: going on with {self.batch} tiles at a time.")
        elif tile > 2 * self.config.multiple:
            self.tile = max(tile // 2, 2 * self.config.multiple)
            self.notify(f"{self.device} ran out of memory: going on with tiles of {self.tile} pixels.")
        else:
            return False
        return True


class ClipReconstructor:
    """The frames of one clip: a tile that is as in the frame before is not computed again.

    It shares the network of the Reconstructor whose `clip` made it, and keeps one frame's tiles, input and output.
    Each frame gives what it gives as a still, whatever came before it. For one thread at a time.
    """

    def __init__(self, reconstructor: Reconstructor) -> None:
        self._reconstructor = reconstructor
        self._before: Computed = {}
        self._small_before: Computed = {}

    def reconstruct(self, ldr: np.ndarray) -> np.ndarray:
        """As `Reconstructor.reconstruct`."""
        return self._reconstructor.compose(ldr, self.predict_log(ldr))

    def predict_log(self, ldr: np.ndarray) -> np.ndarray | None:
        """As `Reconstructor.predict_log`."""
        return self._reconstructor._predict_log(ldr, self._before, self._small_before)


def _bands(picture: np.ndarray) -> Iterator[slice]:
    """Rows to work on at a time: few enough to stay in the processor's cache, and no second copy of the picture."""
    step = max(1, 2**18 // max(1, picture[0].size))
    for top in range(0, len(picture), step):
        yield slice(top, min(top + step, len(picture)))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are equal; a few rows tell most of those apart that are not."""
    return np.array_equal(one[::64], other[::64]) and np.array_equal(one, other)


def _checked(ldr: np.ndarray) -> np.ndarray:
    if ldr.ndim != 3 or ldr.shape[2] != 3 or 0 in ldr.shape:
        raise ValueError(f"expected an H×W×3 picture, not one of shape {ldr.shape}")
    ldr = np.ascontiguousarray(ldr, dtype=np.float32)
    low, high = ldr.min(), ldr.max()
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"expected display-encoded values in [0, 1], not {low} to {high}")
    return ldr


def devices(names: str) -> list[str]:
    """ "cuda:0,cuda:1" → both; "all" → every GPU, or the CPU where there is none; another name → that one."""
    if names == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    return [name for name in (part.strip() for part in names.split(",")) if name] or ["auto"]


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    if name != "auto":
        if name not in _DTYPES:
            raise ValueError(f"precision must be auto, fp32, bf16 or fp16, not {name!r}")
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bf16"
    return "fp32"


def _memory(device: torch.device) -> int:
    """Bytes that the device has in all: what is free just now would make the result depend on the neighbours."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30  # no way to ask: what a small laptop has
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's limit
    except (OSError, ValueError):
        return physical


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
