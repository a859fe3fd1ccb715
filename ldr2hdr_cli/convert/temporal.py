"""Highlights that do not flicker: the network's log output, carried from frame to frame along the motion and blended.

Each frame of a clip is reconstructed on its own (Santos et al. 2020, section 7, name it as their first limitation), so
what is made up changes from frame to frame. `TemporalFilter` blends the log output inside clipped areas with that of
the frame before. A blown sky has no texture from which its motion could be read: it is measured where the picture
is well exposed, as dense flow (DIS, Kroeger et al. 2016) that stands a forward-backward check, and as the one
homography that a turning or zooming camera makes of it; each clipped area follows whichever of the two explains its
surroundings better.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.device import up
from model.errors import Ldr2hdrError
from model.exposure import clipped_pixels, exposure_mask

Temporal = Literal["off", "auto", "strong"]

KEPT = {"auto": 0.85, "strong": 0.92}
"""The share of the frame before where its motion is certain."""

BLOCK = 96
"""Frames that share a state. It begins anew for each block, so that any frame can be made without all before it."""
WARM_UP = 32
"""Frames before a block on which its state is run in: of what a fresh state lacks, 0.92^32 = 7 % are left at most."""

_SIDE = 640  # pixels of the longer side on which motion is measured
_CUT = 0.5  # share of the well-exposed picture that must be found again in the frame before
_FLASH = 1.0  # stops that the exposure may change from one frame to the next


def warm_up(number: int) -> int:
    """The first frame that decides what frame `number` becomes."""
    return max(0, number // BLOCK * BLOCK - WARM_UP)


@dataclass(frozen=True)
class Motion:
    """From one frame to the one before it.

    flow: float32 h×w×3: where each pixel was, minus where it is, as x and y in pixels of the small picture; trust in
    [0, 1]. gain: linear, by which the frame is brighter than the one before.
    """

    flow: np.ndarray
    gain: float


@dataclass
class _State:
    """What a block has blended so far: log output, and 1 where it is clipped; float32 (H·W)×4, 0 elsewhere."""

    block: int
    picture: Tensor | None = None
    lost: str = ""  # the frame that failed, and that it would have to be blended with


class Depends(Ldr2hdrError):
    """A frame cannot be made, because one that decides it failed."""


class TemporalFilter:
    """Blends the frames of one clip; they are given in order, or from `warm_up` of a later one on.

    strength: "auto" or "strong". threshold: α of the mask. floor: whether eq. 1 is held to the clip level from below.
    What a frame becomes depends on the frames from `warm_up` of its number on and on nothing else.
    """

    def __init__(self, strength: Temporal, threshold: float, floor: bool = False) -> None:
        self._kept, self._threshold = KEPT[strength], threshold
        self._least = math.log(2) if floor else 0.0  # of the log output: LDR white
        self._number = -1  # of the last frame
        self._shape: torch.Size | None = None  # of the last frame, where it was not lost
        self._small: np.ndarray | None = None  # the last frame that `push` was given, float32 h×w×3
        self._states: list[_State] = []

    def push(self, number: int, ldr: np.ndarray, log_hdr: np.ndarray | None) -> np.ndarray | None:
        """`blend` for pictures on the host, whose motion is measured when it is needed.

        ldr: float32 H×W×3 in [0, 1]. log_hdr: Y of eq. 1, float32 H×W×3, from `Reconstructor.predict_log`.
        """
        picture = torch.from_numpy(np.ascontiguousarray(ldr))
        small = as_measured(reduced(picture).numpy())
        before, self._small = self._small, small
        log = None if log_hdr is None else torch.from_numpy(log_hdr)
        clipped = clipped_pixels(picture, self._threshold)
        made = self.blend(number, clipped, log, lambda: None if before is None else measure(before, small))
        return None if made is None else made.numpy()

    def blend(
        self, number: int, clipped: Tensor, log_hdr: Tensor | None, motion: Callable[[], Motion | None]
    ) -> Tensor | None:
        """The steady log output of a frame, in new memory; None where `log_hdr` is, because nothing is clipped.

        number: of the frame, counted from 0 at the clip's beginning. clipped: where the mask is below 1, bool H×W.
        log_hdr: Y of eq. 1, float32 H×W×3, on the same device. motion: gives that from the frame before, which is asked
        for where something could be carried over. Raises Depends where the frame hangs on one that was lost.
        """
        self._go_to(number)
        before, self._shape = self._shape, clipped.shape
        if log_hdr is None:
            for state in self._states:
                state.picture, state.lost = None, ""
            return None
        found = None
        if before is not None and any(s.picture is not None or s.lost for s in self._states):
            found = motion() if before == clipped.shape else None
            if found is None:  # nothing is carried over, be it lost or not
                for state in self._states:
                    state.lost = ""
        with torch.inference_mode():
            pictures, result = self._blended(clipped, log_hdr, found)
        for state, picture in zip(self._states, pictures, strict=True):
            state.picture = None if state.lost else picture
        if self._states[0].lost:
            raise Depends(f"it is blended with {self._states[0].lost}, which failed")
        return result

    def _blended(self, clipped: Tensor, log_hdr: Tensor, motion: Motion | None) -> tuple[list[Tensor], Tensor]:
        """The picture of each state, and what the first of them makes of the log output."""
        height, width = clipped.shape
        flow = None if motion is None else up(torch.from_numpy(motion.flow), clipped.device)
        there, log = clipped.flatten(), log_hdr.reshape(-1, 3)
        pictures = [torch.zeros((len(there), 4), device=clipped.device) for _ in self._states]
        result = torch.zeros_like(log)
        for places, numbers in _places(there):
            taken = there[places, None]
            now = torch.cat((log[places].clamp(min=self._least).mul_(taken), taken.to(log.dtype)), 1)
            at = None if flow is None else _earlier(flow, numbers, height, width)
            for state, picture in zip(self._states, pictures, strict=True):
                if state.picture is not None and at is not None and motion is not None:
                    picture[places] = _carried(now, state.picture, at, motion.gain, self._kept, height, width)
                else:
                    picture[places] = now
            result[places] = pictures[0][places, :3]
        return pictures, result.view(log_hdr.shape)

    def lose(self, number: int, name: str) -> None:
        """In the place of `blend`, or after it, for a frame that failed: those that hang on it cannot be made either.

        name: of the frame, in what they say.
        """
        self._go_to(number)
        self._shape = self._small = None
        for state in self._states:
            state.picture, state.lost = None, name

    def _go_to(self, number: int) -> None:
        """Have the states of the blocks that a frame belongs to."""
        if number <= self._number:  # it begins again, to run in on what comes next
            self._shape, self._states = None, []
        self._number = number
        block = number // BLOCK
        wanted = [block, block + 1] if number >= (block + 1) * BLOCK - WARM_UP else [block]
        states = {state.block: state for state in self._states}
        self._states = [states.get(one, _State(one)) for one in wanted]


def _places(clipped: Tensor) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """The pixels to work on, some at a time, and their numbers: the clipped ones; all where to know is to wait."""
    if clipped.device.type == "cpu":
        yield from ((places, places) for places in clipped.nonzero()[:, 0].split(2**16))
    else:
        for numbers in torch.arange(len(clipped), device=clipped.device).split(2**25):
            yield slice(0, len(clipped)) if len(numbers) == len(clipped) else numbers, numbers


def _earlier(flow: Tensor, places: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each pixel was in the frame before, x and y, and the trust in that. flow: of the small picture."""
    rows, columns = (places // width).to(flow.dtype), (places % width).to(flow.dtype)
    down, across = flow.shape[0] / height, flow.shape[1] / width
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), 1)
    found = F.grid_sample(
        flow.permute(2, 0, 1)[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, :, 0]
    return columns + found[0] / across, rows + found[1] / down, found[2]


def _carried(
    now: Tensor, before: Tensor, at: tuple[Tensor, Tensor, Tensor], gain: float, kept: float, height: int, width: int
) -> Tensor:
    """Pixels, N×4, with what was there before, (H·W)×4. at: as `_earlier` gives it."""
    x, y, trust = at
    carried = _between(before, x, y, height, width)
    # Only what was clipped is taken; where a neighbour was not, what it lacks is made up for.
    there = carried[:, 3].contiguous()
    carried.div_(there.clamp(min=1e-3)[:, None])
    if abs(math.log2(gain)) > 1e-3:
        carried = torch.log1p(torch.expm1(carried).mul_(gain))
        carried[:, 3] = 1
    return torch.lerp(now, carried, (kept * trust * (there > 0.95) * now[:, 3])[:, None])


def _between(picture: Tensor, x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """A picture, (H·W)×C, between its pixels, linearly; outside lies 0.

    Not by `grid_sample`, whose coordinates are rounded: what stands still is to stay as it is, to the bit.
    """
    columns, rows = (_corners(at, length) for at, length in ((x, width), (y, height)))
    total = picture.new_zeros((len(x), picture.shape[1]))
    for row, high in rows:
        row = row * width
        for column, wide in columns:
            total.addcmul_(picture.index_select(0, row + column), (high * wide)[:, None])
    return total


def _corners(at: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The pixel below and the one above each place along an axis, and the share of each, which is 0 outside."""
    low = at.floor()
    share = at - low
    return [
        (one.clamp(0, length - 1).to(torch.int32), part.mul_((one >= 0).logical_and_(one < length)))
        for one, part in ((low, 1 - share), (low + 1, share))
    ]


def reduced(ldr: Tensor) -> Tensor:
    """A picture at the size on which motion is measured, or its own if that is less: areas are averaged."""
    factor = min(1.0, _SIDE / max(ldr.shape[:2]))
    if factor < 1:
        for axis, length in enumerate(ldr.shape[:2]):
            ldr = _averaged(ldr, axis, max(1, round(length * factor)))
    return ldr


def _averaged(picture: Tensor, axis: int, count: int) -> Tensor:
    """`count` areas of equal length along an axis; a pixel on a border counts in both, in part."""
    length, shape = picture.shape[axis], (-1, 1, 1) if axis == 0 else (1, -1, 1)
    ends = np.arange(count + 1) * length / count
    first = np.floor(ends[:-1] + 1e-9).astype(np.int64)
    total = None
    for tap in range(int(np.ceil(ends[1:] - 1e-9 - first).max())):
        at = first + tap
        share = np.clip(np.minimum(ends[1:], at + 1) - np.maximum(ends[:-1], at), 0, None) * count / length
        weight = up(torch.from_numpy(share.astype(np.float32)), picture.device).view(shape)
        index = up(torch.from_numpy(np.minimum(at, length - 1)), picture.device)
        part = picture.index_select(axis, index)
        total = part.mul_(weight) if total is None else total.addcmul_(part, weight)
    assert total is not None
    return total


def as_measured(small: np.ndarray) -> np.ndarray:
    """`reduced` on the host, large enough: DIS needs a few pixels."""
    height, width = (max(16, length) for length in small.shape[:2])
    return small if small.shape[:2] == (height, width) else cv2.resize(small, (width, height))


def measure(before: np.ndarray, now: np.ndarray) -> Motion | None:
    """The motion between two small pictures, float32 h×w×3 in [0, 1]; None at a cut, a flash, or where nothing is seen.

    Deterministic: neither DIS nor RANSAC, as OpenCV runs them, depends on the number of threads.
    """
    if np.array_equal(before, now):
        height, width = now.shape[:2]
        return Motion(np.dstack([np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32)]), 1.0)
    grey_before, grey_now = _grey(before), _grey(now)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    nothing = np.zeros((*grey_now.shape, 2), np.float32)
    flow = dis.calc(grey_now, grey_before, nothing.copy())
    back = dis.calc(grey_before, grey_now, nothing)
    seen = np.minimum(_well_exposed(now), _warp(_well_exposed(before), flow))
    returned = flow + _warp(back, flow)
    consistent = np.exp(-_squared(returned) / (0.5 + 0.01 * _squared(flow)))
    textured = _texture(grey_now)
    sure = consistent * textured * seen
    camera = _camera(flow, sure)
    local = camera + _spread(flow - camera, sure)
    gain = _gain(before, now, flow, sure)
    if gain is None:
        return None
    errors = [_error(before, now, candidate, gain, seen) for candidate in (camera, local)]
    # The simpler explanation, unless the other one is clearly better.
    prefer = 1 / (1 + (errors[0] / (errors[1] + 0.004)) ** 4)
    flow = local + (camera - local) * prefer[..., None]
    error = errors[1] + (errors[0] - errors[1]) * prefer
    trust = np.exp(-((error / 0.06) ** 2)).astype(np.float32)
    found = float((trust * seen).sum() / max(float(seen.sum()), 1.0))
    if found < _CUT or abs(np.log2(gain)) > _FLASH:
        return None
    return Motion(np.dstack([flow, trust]).astype(np.float32), gain)


def _grey(small: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.convertScaleAbs(small, alpha=255), cv2.COLOR_RGB2GRAY)


def _brightest(picture: np.ndarray) -> np.ndarray:
    """The largest channel, H×W; NumPy's own maximum over an axis of three is ten times as slow."""
    red, green, blue = cv2.split(picture)
    return cv2.max(cv2.max(red, green), blue)


def _well_exposed(small: np.ndarray) -> np.ndarray:
    """float32 h×w: 1 where no channel is near its clip level and not all are black."""
    brightest = _brightest(small)
    return (exposure_mask(brightest, 0.9) * (brightest > 0.04)).astype(np.float32)


def _squared(flow: np.ndarray) -> np.ndarray:
    return flow[..., 0] ** 2 + flow[..., 1] ** 2


def _texture(grey: np.ndarray) -> np.ndarray:
    """float32 h×w in [0, 1]: whether there is anything by which motion could be seen."""
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = cv2.boxFilter(across**2 + down**2, -1, (9, 9))
    return strength / (strength + 64)


def _warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(
        picture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _camera(flow: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The motion that a turning, zooming camera makes of everything, float32 h×w×2: one homography, by RANSAC."""
    height, width = sure.shape
    rows, columns = np.nonzero(sure[2::4, 2::4] > 0.3)
    points = np.stack([columns, rows], 1).astype(np.float32) * 4 + 2
    if len(points) >= 32:
        there = points + flow[2::4, 2::4][rows, columns]
        matrix, inside = cv2.findHomography(points, there, cv2.RANSAC, 0.75, maxIters=500, confidence=0.99)
        if matrix is not None and inside.mean() > 0.3:
            grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
            return cv2.perspectiveTransform(grid.reshape(1, -1, 2), matrix).reshape(height, width, 2) - grid
    if len(points):
        return np.broadcast_to(np.median(flow[2::4, 2::4][rows, columns], axis=0), flow.shape).astype(np.float32)
    return np.zeros_like(flow)


def _spread(values: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Values where they are sure, and elsewhere those of the nearest sure surroundings, by a pyramid; far off, 0."""
    levels = [(values * sure[..., None], sure)]
    while min(levels[-1][1].shape) > 4:
        levels.append((cv2.pyrDown(levels[-1][0]), cv2.pyrDown(levels[-1][1])))
    filled = np.zeros_like(levels[-1][0])
    for sums, weights in reversed(levels):
        coarse = cv2.resize(filled, weights.shape[::-1], interpolation=cv2.INTER_LINEAR)
        filled = (sums + 0.05 * coarse) / (weights + 0.05)[..., None]
    return filled


def _gain(before: np.ndarray, now: np.ndarray, flow: np.ndarray, sure: np.ndarray) -> float | None:
    """By how much brighter the frame is, linear: the median over the brighter half below the clip level."""
    carried, bright = _brightest(_warp(before, flow)), _brightest(now)
    for low in (0.5, 0.1):
        chosen = (sure > 0.2) & (bright > low) & (bright < 0.92) & (carried > low / 2) & (carried < 0.94)
        if np.count_nonzero(chosen) >= 64:
            ratio = np.median(bright[chosen] / carried[chosen])
            return float(ratio) ** 2  # eq. 1 takes the square for linear
    return 1.0 if np.count_nonzero(sure > 0.2) >= 64 else None


def _error(before: np.ndarray, now: np.ndarray, flow: np.ndarray, gain: float, seen: np.ndarray) -> np.ndarray:
    """float32 h×w: how far the frame before, carried along, misses this one in the well-exposed surroundings."""
    difference = _brightest(cv2.absdiff(_warp(before, flow) * np.float32(np.sqrt(gain)), now))
    side = max(9, round(max(seen.shape) / 24))
    weight = seen + np.float32(0.02)
    return cv2.blur(difference * weight, (side, side)) / cv2.blur(weight, (side, side))
