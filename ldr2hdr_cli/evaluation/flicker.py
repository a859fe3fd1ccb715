"""How much a converted clip flickers, beside how right it is.

Flicker is what changes from one frame to the next, along the true motion, in the log ratio of prediction to truth,
inside clipped areas, in stops. Along the motion the truth changes by the drift of the exposure and by nothing else, so
what is left is the prediction's. A result that is wrong but steady has none, and one that is blurred or frozen is
wrong: hence the errors stand beside it. The clip is aligned with its truth once, since a scale for each frame would
hide flicker.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ldr2hdr_cli.convert.operators import expand
from ldr2hdr_cli.convert.temporal import Temporal, TemporalFilter
from ldr2hdr_cli.evaluation.alignment import align_scale
from ldr2hdr_cli.evaluation.clips import Clip, correspondence, directions, project
from ldr2hdr_cli.evaluation.metrics import PEAK, WHITE, bias_stops, pu21_psnr, rmse_stops
from ldr2hdr_cli.evaluation.protocol import aligning_pixels

FLOOR = 1e-4  # linear; darker counts as this
ALONE = ", frame by frame"

ClipMethod = Callable[[Clip], dict[str, list[np.ndarray]]]
"""A clip → its frames, H×W×3, linear, by the name of each way to make them."""


def operator_clips(name: str) -> ClipMethod:
    """A classical operator, which knows nothing of the frame before."""
    return lambda clip: {name: [expand(frame.ldr, name) for frame in clip.frames]}


def network_clips(
    name: str,
    weights: Path | None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    temporal: tuple[Temporal, ...] = ("auto", "strong"),
) -> ClipMethod:
    """A network frame by frame, and with each strength of the temporal filter; it runs once for all of them."""
    from model import Reconstructor, load_network
    from model.checkpoint import usual_working_size

    working_size = usual_working_size(weights)
    reconstructor = Reconstructor(load_network(weights), device, precision, working_size=working_size)
    config = reconstructor.config
    names = {"auto": name, "strong": f"{name}, strong"}

    def convert(clip: Clip) -> dict[str, list[np.ndarray]]:
        predictor = reconstructor.clip()
        logs = [predictor.predict_log(frame.ldr) for frame in clip.frames]
        made = {}
        for strength in temporal:
            temporal_filter = TemporalFilter(strength, config.mask_threshold, config.floor)
            made[names[strength]] = [
                reconstructor.compose(frame.ldr, temporal_filter.push(number, frame.ldr, log))
                for number, (frame, log) in enumerate(zip(clip.frames, logs, strict=True))
            ]
        alone = zip(clip.frames, logs, strict=True)
        made[name + ALONE] = [reconstructor.compose(frame.ldr, log) for frame, log in alone]
        return made

    return convert


def aligned(made: list[np.ndarray], clip: Clip) -> list[np.ndarray]:
    """All frames times one factor, from the well-exposed pixels of all frames."""
    predictions, truths, exposed = (
        np.concatenate(parts)
        for parts in zip(
            *((p[::4], f.truth[::4], aligning_pixels(f.ldr)[::4]) for p, f in zip(made, clip.frames, strict=True)),
            strict=True,
        )
    )
    scale = np.float32(align_scale(predictions, truths, exposed))
    return [np.maximum(picture, 0).astype(np.float32) * scale for picture in made]


def errors(made: list[np.ndarray], clip: Clip) -> Iterator[np.ndarray]:
    """log2(prediction / truth) of each frame, float32 H×W×3."""
    for picture, frame in zip(made, clip.frames, strict=True):
        yield np.log2(np.maximum(picture, FLOOR)) - np.log2(np.maximum(frame.truth, FLOOR))


def flicker(made: list[np.ndarray], clip: Clip) -> np.ndarray:
    """Absolute change of the log ratio along the motion, in stops, of every value that is clipped in both frames.

    made: frames of any one scale. Between pixels log2 is interpolated, only where all four are clipped, which takes
    the truth itself some hundredths of a stop. Flat, all frames together.
    """
    changes = []
    for number in range(1, len(clip.frames)):
        before, now = clip.frames[number - 1], clip.frames[number]
        log_before, log_now = (np.log2(np.maximum(made[index], FLOOR)) for index in (number - 1, number))
        place, is_same = correspondence(now, before)
        x, y = np.ascontiguousarray(place[..., 0]), np.ascontiguousarray(place[..., 1])
        carried = cv2.remap(log_before, x, y, cv2.INTER_LINEAR) + np.float32(now.stops - before.stops)
        there = cv2.remap(before.clipped.astype(np.float32), x, y, cv2.INTER_LINEAR)
        both = now.clipped & (there > 0.999) & is_same[..., None]
        changes.append(np.abs(log_now - carried)[both])
    return np.concatenate(changes) if changes else np.zeros(0)


def score_clip(
    made: list[np.ndarray], clip: Clip, method: str, peak: float = PEAK, white: float = WHITE
) -> dict[str, Any]:
    """One row: flicker, its 99th percentile, and what a frozen or blurred result would pay for it.

    made: frames of any scale. flicker and errors in stops, inside clipped areas; pu21_psnr in dB, of whole frames.
    """
    made = aligned(made, clip)
    change = flicker(made, clip)
    pairs = [(p, f.truth, f.clipped) for p, f in zip(made, clip.frames, strict=True)]
    squares = [rmse_stops(*pair) ** 2 for pair in pairs]
    return {
        "case": clip.name,
        "scene": clip.scene,
        "motion": clip.motion,
        "method": method,
        "flicker": float(change.mean()) if change.size else np.nan,
        "flicker_p99": float(np.percentile(change, 99)) if change.size else np.nan,
        "rmse_stops_clipped": float(np.sqrt(np.nanmean(squares))),
        "bias_stops_clipped": float(np.nanmean([bias_stops(*pair) for pair in pairs])),
        "pu21_psnr": float(np.mean([pu21_psnr(p, truth, None, peak, white) for p, truth, _ in pairs])),
    }


def tracked(clip: Clip) -> np.ndarray | None:
    """A highlight that stays in view, clipped and free of the ball in every frame: frames×2 (x, y); None without one.

    Of all such points the one whose truth is brightest.
    """
    size, first = len(clip.frames[0].ldr), clip.frames[0]
    rows, columns = np.nonzero(first.clipped.all(axis=2) & (first.ball <= 0))
    if not len(rows):
        return None
    rays = directions(np.stack([columns, rows], 1).astype(np.float64), first.pose, size)
    good, light, places = np.ones(len(rays), bool), np.zeros(len(rays)), []
    for frame in clip.frames:
        place = np.nan_to_num(project(rays, frame.pose, size), nan=-1e4)
        places.append(place)
        good &= np.all((place >= 3) & (place <= size - 4), axis=1)
        near = np.clip(np.rint(place).astype(int), 0, size - 1)
        solid = cv2.erode((frame.clipped.all(axis=2) & (frame.ball <= 0)).astype(np.uint8), np.ones((5, 5)))
        good &= solid[near[:, 1], near[:, 0]] > 0
        light += np.log2(np.maximum(frame.truth[near[:, 1], near[:, 0]].mean(axis=1), FLOOR))
    if not good.any():
        return None
    best = int(np.argmax(np.where(good, light, -np.inf)))
    return np.array([place[best] for place in places])


def along(made: list[np.ndarray], clip: Clip, track: np.ndarray) -> list[float]:
    """log2(prediction / truth) of 5×5 pixels about a tracked point, in stops, frame by frame. made: aligned frames."""
    values = []
    for error, (x, y) in zip(errors(made, clip), np.rint(track).astype(int), strict=True):
        values.append(float(error[y - 2 : y + 3, x - 2 : x + 3].mean()))
    return values
