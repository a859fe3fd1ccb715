"""Runs methods on cases and scores what they make of them.

A method is a function from a case to a linear picture of its shape. What it returns is aligned with the truth
on well-exposed pixels and then scored; no clipped pixel takes part in the alignment.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldr2hdr_cli.convert.operators import expand
from ldr2hdr_cli.evaluation import si_hdr
from ldr2hdr_cli.evaluation.alignment import align_scale, fit_curve
from ldr2hdr_cli.evaluation.crf import crf_corrected
from ldr2hdr_cli.evaluation.lights import light_rmse_stops
from ldr2hdr_cli.evaluation.metrics import (
    PEAK,
    PU21_RANGE,
    WHITE,
    cvvdp_jod,
    hdrvdp,
    hdrvdp2_quality,
    hdrvdp3_quality,
    pu21_piqe,
    pu21_psnr,
    pu21_ssim,
    pu21_vsi,
    score,
)
from ldr2hdr_cli.evaluation.protocol import Case, aligning_pixels
from ldr2hdr_cli.media.pictures import read_hdr
from ldr2hdr_cli.terminal import one_line
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.cache import Cache
    from model.device import Precision

Method = Callable[[Case], np.ndarray]
PICTURE_SUFFIXES = (".exr", ".hdr")  # of pictures that another program made, tried in this order
CURVE_PIXELS = 0.9  # display value of the brightest channel up to which a pixel helps to fit the camera curve


@dataclass(frozen=True)
class Scoring:
    """fit: also remove the camera curve. cvvdp: with ColorVideoVDP, which takes a second a picture on a CPU.

    peak, white: of the imagined display, in cd/m²; a case's own white comes first. device: where ColorVideoVDP and
    HDR-VDP run. hdrvdp: with both versions of HDR-VDP, at `pixels_per_degree` (None for their own). si_hdr: align, and
    score too, as the SI-HDR benchmark does, in which one of the methods is `si_hdr.UNPROCESSED`. basic: with all that
    is always scored; off only where it is known already.
    """

    fit: bool = False
    cvvdp: bool = True
    peak: float = PEAK
    white: float = WHITE
    device: str = "cpu"
    hdrvdp: bool = False
    pixels_per_degree: float | None = None
    si_hdr: bool = False
    basic: bool = True


@dataclass(frozen=True)
class Result:
    """A case, each method's aligned picture by the method's name, and one row of scores for each."""

    case: Case
    pictures: Mapping[str, np.ndarray]
    rows: list[dict[str, Any]]


class Pictures(Mapping[str, np.ndarray]):
    """Each method's aligned picture by its name, made when it is first asked for: its scores may be known already."""

    def __init__(self, case: Case, methods: dict[str, Method], scoring: Scoring) -> None:
        self._case, self._methods, self._scoring = case, methods, scoring
        self._made: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._made:
            made = _finite(name, self._methods[name](self._case), self._case)
            self._made[name] = aligned(made, self._case, self._scoring.fit, self._scoring.si_hdr)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


def operator_method(name: str) -> Method:
    """One of the classical operators, by its name in `operators.METHODS`."""
    return lambda case: expand(case.ldr, name)


def network_method(weights: Path | None, device: str = "auto", precision: Precision = "auto") -> Method:
    """A network by its weights; None for the default weights. Safe to call from several threads.

    Panoramas are looked at in views, as `convert` does.
    """
    from model import Reconstructor, load_network
    from model.checkpoint import usual_working_size
    from model.panorama import reconstruct_views

    working_size = usual_working_size(weights)
    reconstructor = Reconstructor(load_network(weights), device, precision, working_size=working_size)
    one_at_a_time = threading.Lock()

    def run(case: Case) -> np.ndarray:
        with one_at_a_time:
            if case.exposure != "panorama":
                return reconstructor.reconstruct(case.ldr)
            log = reconstruct_views(reconstructor.predict_log, case.ldr, reconstructor.threshold, reconstructor.device)
            return reconstructor.compose(case.ldr, log)

    return run


def prediction_method(folder: Path) -> Method:
    """Pictures that another program made: `NAME.exr` or `NAME.hdr` in `folder`, NAME as in `Case.name`.

    Of SI-HDR also `clip_95/SCENE.exr`, as its data set has them for each method.
    """
    if not folder.is_dir():
        raise Ldr2hdrError(f"{folder} is not a folder; give the folder with the other program's pictures.")

    def read(case: Case) -> np.ndarray:
        for suffix in PICTURE_SUFFIXES:
            for path in (folder / (case.name + suffix), folder / case.exposure / (case.scene + suffix)):
                if path.is_file():
                    return _same_size(read_hdr(path), case, path)
        raise Ldr2hdrError(
            f"{folder} lacks {case.name}.exr (or .hdr); make it from the picture that --save-inputs writes."
        )

    return read


def methods_by_name(
    operators: Iterable[str],
    networks: Iterable[Path | None],
    predictions: Iterable[Path],
    device: str = "auto",
    precision: Precision = "auto",
) -> dict[str, Method]:
    """Every method by the name that it has in the tables; the second of a name is called "name (2)".

    operators: names of `operators.METHODS`. networks: weights files, None for the default weights. predictions:
    folders of pictures that other programs made.
    """
    methods = {name: operator_method(name) for name in operators}
    for path in networks:
        methods[_unused(network_name(path), methods)] = network_method(path, device, precision)
    for folder in predictions:
        methods[_unused(one_line(folder.resolve().name), methods)] = prediction_method(folder)
    return methods


def network_name(weights: Path | None) -> str:
    """Of a network, in the tables."""
    return "ldr2hdr" if weights is None else one_line(weights.stem)


def _unused(name: str, taken: Iterable[str]) -> str:
    candidates = [name, *(f"{name} ({number})" for number in range(2, 1000))]
    return next(candidate for candidate in candidates if candidate not in taken)


def compare(
    cases: Iterable[Case], methods: dict[str, Method], scoring: Scoring, jobs: int = 1, cache: Cache | None = None
) -> Iterator[Result]:
    """Run every method on every case, `jobs` cases at a time; results come in the order of the cases.

    cache: of scores; what it has is not computed again.
    """
    if jobs == 1:
        yield from (_result(case, methods, scoring, cache) for case in cases)
        return
    remaining = iter(cases)
    with ThreadPoolExecutor(jobs, thread_name_prefix="evaluate") as pool:
        # Few cases wait at a time: they are pictures, and there may be thousands.
        waiting: deque[Future[Result]] = deque()
        try:
            for case in islice(remaining, 2 * jobs):
                waiting.append(pool.submit(_result, case, methods, scoring, cache))
            while waiting:
                result = waiting.popleft().result()
                for case in islice(remaining, 1):
                    waiting.append(pool.submit(_result, case, methods, scoring, cache))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def aligned(prediction: np.ndarray, case: Case, fit: bool = False, by_si_hdr: bool = False) -> np.ndarray:
    """`prediction` on the truth's scale (and through its fitted camera curve), from well-exposed pixels only.

    prediction: H×W×3, linear, of any scale. Scale is the one that holds next below the clip level, where the
    clipped areas begin: see `protocol.aligning_pixels`; or `si_hdr.gain`. float32, never negative.
    """
    prediction = np.maximum(prediction, 0).astype(np.float32)
    if fit:
        return fit_curve(prediction, case.truth, case.ldr.max(axis=2) <= CURVE_PIXELS)(prediction)
    if by_si_hdr:
        return prediction * np.float32(si_hdr.gain(prediction, case))
    return prediction * np.float32(align_scale(prediction, case.truth, aligning_pixels(case.ldr)))


_CVVDP_LOCK = threading.Lock()  # the metric is one object with state


def _result(case: Case, methods: dict[str, Method], scoring: Scoring, cache: Cache | None) -> Result:
    pictures = Pictures(case, methods, scoring)

    def columns(name: str, scoring: Scoring) -> dict[str, Any]:
        return _columns(case, pictures[name], scoring)

    if cache is None:
        found = {name: columns(name, scoring) for name in methods}
    else:
        found = cache.scores(case, pictures, scoring, columns)
    rows = [_labels(case, name) | found[name] for name in methods]
    return Result(case, pictures, si_hdr.with_gains(rows) if scoring.si_hdr else rows)


def _labels(case: Case, method: str) -> dict[str, Any]:
    return {
        "case": one_line(case.name),
        "scene": one_line(case.scene),
        "exposure": case.exposure,
        "level": case.level,
        "method": method,
    }


def _columns(case: Case, picture: np.ndarray, scoring: Scoring) -> dict[str, Any]:
    row: dict[str, Any] = {}
    peak, white, seen = scoring.peak, case.white or scoring.white, scoring.pixels_per_degree
    if scoring.basic:
        row |= score(picture, case.truth, case.clipped, peak=peak, white=white, cvvdp=False)
        if case.exposure == "panorama":
            row["light_rmse_stops"] = light_rmse_stops(picture, case.truth)
    if scoring.cvvdp:
        with _CVVDP_LOCK:
            row["cvvdp_jod"] = cvvdp_jod(picture, case.truth, peak, white, scoring.device)
    by_si_hdr = scoring.basic and scoring.si_hdr
    if by_si_hdr:
        row |= hdrvdp3_quality(picture, case.truth, peak, white, seen, scoring.device)
    if scoring.hdrvdp:
        versions = hdrvdp2_quality if scoring.si_hdr else hdrvdp  # that protocol always has version 3
        row |= versions(picture, case.truth, peak, white, seen, scoring.device)
    if by_si_hdr:
        row["pu21_piqe"] = pu21_piqe(picture, peak, white)
        row |= _after_crf(picture, case.truth, peak, white, seen, scoring.device)
    return row


def _after_crf(
    picture: np.ndarray, truth: np.ndarray, peak: float, white: float, pixels_per_degree: float | None, device: str
) -> dict[str, float]:
    """The benchmark's metrics after its fit of tone and colour, which may exceed the display's peak by little."""
    shown = [np.minimum(p * white, peak) for p in (picture, truth)]
    corrected = crf_corrected(*shown)
    display = PU21_RANGE[1], 1.0
    row = {
        "pu21_psnr": pu21_psnr(corrected, shown[1], None, *display),
        "pu21_ssim": pu21_ssim(corrected, shown[1], None, *display),
        "pu21_vsi": pu21_vsi(corrected, shown[1], *display),
        **hdrvdp3_quality(corrected, shown[1], *display, pixels_per_degree, device),
    }
    return {key + si_hdr.CRF: value for key, value in row.items()}


def _finite(name: str, picture: np.ndarray, case: Case) -> np.ndarray:
    if not np.isfinite(picture).all():
        raise Ldr2hdrError(
            f"{name} gave infinite or NaN values for {case.name}, which cannot be scored; leave one of them out."
        )
    return picture


def _same_size(picture: np.ndarray, case: Case, path: Path) -> np.ndarray:
    picture = picture[..., :3]
    if picture.shape != case.truth.shape:
        height, width = case.truth.shape[:2]
        raise Ldr2hdrError(
            f"{path} is {picture.shape[1]}×{picture.shape[0]}, its input {width}×{height}; give a picture of one size."
        )
    return picture
