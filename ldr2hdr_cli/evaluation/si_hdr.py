"""The SI-HDR benchmark: its pictures, or pictures made by its rules, and its alignment.

Hanji, Mantiuk, Eilertsen, Hajisharif and Unger 2022, "Comparison of single image HDR reconstruction methods — the
caveats of quality assessment" (SIGGRAPH); the layout is that of their data set's README. What they leave open is as in
the table of ExpandDiff (Andıran, Yang, Lu, Salzmann and Süsstrunk 2026, sections 3.1, 4.1 and 4.2, and its code,
github.com/memreandiran/expanddiff), so that our rows can stand in it: the median luminance is shown at 20 cd/m² on a
display of 1000, one gain is fitted by least squares on pixels of which no channel is 0 or 1, and the row of the
unprocessed LDR picture is that picture decoded as sRGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ldr2hdr_cli.evaluation.protocol import (
    CLIPPED_CODE,
    Case,
    Protocol,
    given_cases,
    photograph,
    read_truth,
    scenes,
    views_of,
)
from model.constants import LUMINANCE
from model.errors import Ldr2hdrError
from model.exposure import encode, linearise
from train.views import is_panorama

LEVELS = {5.0: "clip_95", 3.0: "clip_97"}  # per cent of the values that clip: the data set's name
MEDIAN = 20.0  # cd/m² at which the median luminance is shown
PEAK = 1000.0  # cd/m², of the display
SIDE = 512  # pixels, of pictures that are made
CURVE = (0.9, 0.6)  # the mean camera curve of Eilertsen et al. 2017; the benchmark's own is not published
ENOUGH = 100  # unclipped pixels to fit the gain on; where there are fewer, all are used
UNPROCESSED = "unprocessed LDR"
FULL_REFERENCE = ("pu21_psnr", "pu21_vsi", "hdrvdp3_q", "hdrvdp3_jod", "pu21_ssim")  # also scored after the +CRF fit
CRF, GAIN = "_crf", "_gain"  # ends of a metric's key


def si_hdr_cases(folder: Path, protocol: Protocol, white: float | None = None) -> Iterator[Case]:
    """Cases of the unpacked data set, or, of any other folder of HDR pictures, cases made by the same rules.

    Of the data set: `reference/` and `input/clip_95/`, `input/clip_97/` (or those two beside `reference/`). Made: the
    95th or 97th percentile of all values of R, G and B is the clip level, then come one camera curve and 8 bits; the
    data set's noise, at ISO 100 under one such code, is left out. protocol.size: pictures are cut to a square and
    reduced to it; 0 leaves those of the data set alone, and is `SIDE` for others. white: cd/m² of the clip level, None
    for what shows the median luminance at `MEDIAN`.
    Raises Ldr2hdrError for a share that is not in `LEVELS`, and as `protocol.made_cases` does.
    """
    if unknown := [share for share in protocol.shares if share not in LEVELS]:
        raise Ldr2hdrError(f"--share {unknown[0]:g}: SI-HDR clips 5 or 3 per cent of the values; give 5, 3 or 3,5.")
    if (root := data_set(folder)) is None:
        yield from _made(folder, protocol, white)
        return
    wanted = [level for share, level in LEVELS.items() if share in protocol.shares]
    if not (found := {level: path for level in wanted if (path := _inputs(root, level))}):
        raise Ldr2hdrError(f"{root} lacks input/{wanted[0]}; unpack the data set's input.zip there.")
    for level, inputs in found.items():
        for case in given_cases(inputs, root / "reference", protocol.only):
            named = replace(case, name=f"{level}_{case.scene}", exposure=level, level=float(level[-2:]))
            yield square(anchored(named, white), protocol.size)


def data_set(folder: Path) -> Path | None:
    """Where in `folder` the data set was unpacked: there, or in `sihdr/`. None where it was not."""
    return next((place for place in (folder, folder / "sihdr") if (place / "reference").is_dir()), None)


def anchored(case: Case, white: float | None = None) -> Case:
    """The case with the light that its clip level is shown at: `white`, or what brings its median to `MEDIAN`."""
    luminance = case.truth @ np.array(LUMINANCE, np.float32)
    lit = luminance[luminance > 0]
    return replace(case, white=white or (MEDIAN / max(float(np.median(lit)), 1e-12) if lit.size else MEDIAN))


def square(case: Case, size: int) -> Case:
    """The middle of both pictures, size×size pixels, which are means of the light in theirs. 0: the case as it is."""
    if size == 0:
        return case
    truth, light = (_shrunk(_middle(picture), size) for picture in (case.truth, linearise(case.ldr, "srgb")))
    ldr = np.rint(255 * encode(light, "srgb").clip(0, 1)).astype(np.float32) / 255
    return replace(case, ldr=ldr, truth=truth, clipped=ldr >= CLIPPED_CODE)


def gain(prediction: np.ndarray, case: Case) -> float:
    """Σ p·t / Σ p² over the pixels of which no channel is clipped, at either end."""
    unclipped = np.all((case.ldr > 0) & (case.ldr < 1), axis=2)
    chosen = unclipped if np.count_nonzero(unclipped) >= ENOUGH else np.full(unclipped.shape, True)
    p, t = (picture[chosen].astype(np.float64) for picture in (prediction, case.truth))
    power = float((p * p).sum())
    return float((p * t).sum()) / power if power > 0 else 1.0


def unprocessed(case: Case) -> np.ndarray:
    """The LDR picture as every viewer shows it, linear, H×W×3: what a method must improve on."""
    linear: np.ndarray = linearise(case.ldr, "srgb")
    return linear


def with_gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one case, each with what its metrics of this benchmark are above those of `UNPROCESSED`."""
    plain = next(row for row in rows if row["method"] == UNPROCESSED)
    return [row | {key + GAIN: row[key] - plain[key] for key in metric_keys() if key in row} for row in rows]


def metric_keys() -> list[str]:
    """Of this benchmark, in the order of its tables. PIQE needs no truth, so it is not scored after the +CRF fit."""
    return [name for key in FULL_REFERENCE for name in (key, key + CRF)] + ["pu21_piqe"]


def _inputs(root: Path, level: str) -> Path | None:
    return next((path for path in (root / "input" / level, root / level) if path.is_dir()), None)


def _made(folder: Path, protocol: Protocol, white: float | None) -> Iterator[Case]:
    protocol = replace(protocol, size=protocol.size or SIDE)
    for path in scenes(folder, protocol.only):
        truth = read_truth(path)
        truth = truth if is_panorama(truth.shape) else _middle(truth)
        for view, tag in views_of(truth, path.stem, protocol, mild=False):
            for share in protocol.shares:
                level = LEVELS[share]
                clip = max(float(np.percentile(view, 100 - share)), 1e-12)
                name = f"{level}_{path.stem}_{tag}"
                case = photograph(name, path.stem, level, 100 - share, view / np.float32(clip), *CURVE, protocol.jpeg)
                yield anchored(case, white)


def _middle(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def _shrunk(picture: np.ndarray, size: int) -> np.ndarray:
    return picture if len(picture) <= size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
