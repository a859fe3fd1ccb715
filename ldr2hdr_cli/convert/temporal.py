"""Highlights that do not flicker: the network's log output, carried from frame to frame along the motion and blended.

Each frame of a clip is reconstructed on its own (Santos et al. 2020, section 7, name it as their first limitation), so
what is made up changes from frame to frame. `TemporalFilter` blends the log output inside clipped areas with that of
the frame before. A blown sky has no texture from which its motion could be read: it is measured where the picture
is well exposed, as dense flow (DIS, Kroeger et al. 2016) that stands a forward-backward check, and as the one
homography that a turning or zooming camera makes of it; each clipped area follows whichever of the two explains its
surroundings better.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from model.errors import Ldr2hdrError
from model.exposure import exposure_mask

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
    """What a block has blended so far: log output, and 1 where it is clipped; float32 H×W×4, 0 elsewhere."""

    block: int
    picture: np.ndarray | None = None
    lost: str = ""  # the frame that failed, and that it would have to be blended with


class Depends(Ldr2hdrError):
    """A frame cannot be made, because one that decides it failed."""


class TemporalFilter:
    """Blends the frames of one clip; `push` takes them in order, or from `warm_up` of a later one on.

    strength: "auto" or "strong". threshold: α of the mask. floor: whether eq. 1 is held to the clip level from below.
    What a frame becomes depends on the frames from `warm_up` of its number on and on nothing else.
    """

    def __init__(self, strength: Temporal, threshold: float, floor: bool = False) -> None:
        self._kept, self._threshold = KEPT[strength], threshold
        self._least = np.float32(np.log(2) if floor else 0)  # of the log output: LDR white
        self._number = -1  # of the last frame
        self._small: np.ndarray | None = None  # the last frame, float32 h×w×3
        self._states: list[_State] = []

    def push(self, number: int, ldr: np.ndarray, log_hdr: np.ndarray | None) -> np.ndarray | None:
        """The steady log output of a frame, in new memory; None where `log_hdr` is, because nothing is clipped.

        number: of the frame, counted from 0 at the clip's beginning. ldr: float32 H×W×3 in [0, 1]. log_hdr: Y of eq. 1,
        float32 H×W×3, from `Reconstructor.predict_log`. Raises Depends where it hangs on a frame that was lost.
        """
        self._go_to(number)
        small = _reduced(ldr)
        before, self._small = self._small, small
        if log_hdr is None:
            for state in self._states:
                state.picture, state.lost = None, ""
            return None
        motion = None
        if before is not None and any(s.picture is not None or s.lost for s in self._states):
            motion = measure(before, small) if before.shape == small.shape else None
            if motion is None:  # nothing is carried over, be it lost or not
                for state in self._states:
                    state.lost = ""
        clipped = _clipped(ldr, self._threshold)
        squares = _squares(clipped)
        pictures = [np.zeros((*clipped.shape, 4), np.float32) for _ in self._states]
        result = np.zeros_like(log_hdr)
        for square in squares:
            now = np.empty((*clipped[square].shape, 4), np.float32)
            now[..., :3], now[..., 3] = np.maximum(log_hdr[square], self._least), 1
            now *= clipped[square][..., None]
            place = None if motion is None else _place(motion, square, clipped.shape)
            for state, picture in zip(self._states, pictures, strict=True):
                picture[square] = _blended(now, state.picture, place, motion, self._kept)
            result[square] = pictures[0][square][..., :3]
        for state, picture in zip(self._states, pictures, strict=True):
            state.picture = None if state.lost else picture
        if self._states[0].lost:
            raise Depends(f"it is blended with {self._states[0].lost}, which failed")
        return result

    def lose(self, number: int, name: str) -> None:
        """In the place of `push`, or after it, for a frame that failed: those that hang on it cannot be made either.

        name: of the frame, in what they say.
        """
        self._go_to(number)
        self._small = None
        for state in self._states:
            state.picture, state.lost = None, name

    def _go_to(self, number: int) -> None:
        """Have the states of the blocks that a frame belongs to."""
        if number <= self._number:  # it begins again, to run in on what comes next
            self._small, self._states = None, []
        self._number = number
        block = number // BLOCK
        wanted = [block, block + 1] if number >= (block + 1) * BLOCK - WARM_UP else [block]
        states = {state.block: state for state in self._states}
        self._states = [states.get(one, _State(one)) for one in wanted]


def _blended(
    now: np.ndarray,
    before: np.ndarray | None,
    place: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    motion: Motion | None,
    kept: float,
) -> np.ndarray:
    """A square of the picture, h×w×4, with what was there before. place: as `_place` gives it."""
    if before is None or place is None or motion is None:
        return now
    x, y, trust = place
    carried = cv2.remap(before, x, y, cv2.INTER_LINEAR)
    # Only what was clipped is taken; where a neighbour was not, what it lacks is made up for.
    there = carried[..., 3]
    carried = carried[..., :3] / np.maximum(there, 1e-3)[..., None]
    if abs(np.log2(motion.gain)) > 1e-3:
        carried = np.log1p(np.expm1(carried) * np.float32(motion.gain))
    weight = np.float32(kept) * trust * (there > 0.95) * now[..., 3]
    result = now.copy()
    result[..., :3] += weight[..., None] * (carried - now[..., :3])
    return result


def _place(
    motion: Motion, square: tuple[slice, slice], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel of a square was in the frame before, x and y, and how far that can be trusted; h×w each."""
    rows, columns = (np.arange(part.start, part.stop, dtype=np.float32) for part in square)
    down, across = (np.float32(small / full) for small, full in zip(motion.flow.shape, shape, strict=False))
    # As cv2.resize would enlarge it.
    x, y = np.meshgrid((columns + np.float32(0.5)) * across - 0.5, (rows + np.float32(0.5)) * down - 0.5)
    flow = cv2.remap(motion.flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return flow[..., 0] / across + columns, flow[..., 1] / down + rows[:, None], flow[..., 2]


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


def _reduced(ldr: np.ndarray) -> np.ndarray:
    height, width = ldr.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    size = max(16, round(width * factor)), max(16, round(height * factor))  # DIS needs a few pixels
    return cv2.resize(ldr, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


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


def _clipped(ldr: np.ndarray, threshold: float) -> np.ndarray:
    """bool H×W: where any channel is above the threshold."""
    below = cv2.inRange(ldr, (0.0,) * 3, (float(np.float32(threshold)),) * 3)
    return below == 0


def _squares(clipped: np.ndarray, side: int = 128) -> list[tuple[slice, slice]]:
    """Rectangles, of side×side pixels at most, that hold all that is clipped, and little else."""
    height, width = clipped.shape
    there = clipped.view(np.uint8)
    found = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            x, y, across, down = cv2.boundingRect(there[top : top + side, left : left + side])
            if across:
                found.append((slice(top + y, top + y + down), slice(left + x, left + x + across)))
    return found
