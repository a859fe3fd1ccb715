"""The network with the options of `convert`: for the pipeline, and for one picture in memory."""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ldr2hdr_cli.convert.gain_map import own_light
from ldr2hdr_cli.convert.temporal import Motion, TemporalFilter, as_measured, measure, reduced
from ldr2hdr_cli.convert.worklist import Work
from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.memory import machine_memory
from ldr2hdr_cli.option_values import cores, memory_bytes
from ldr2hdr_cli.options import ConvertOptions
from model.checkpoint import DEFAULT_WEIGHTS, load_network, usual_working_size, weights_sha256
from model.codes import Codes
from model.device import Down, devices
from model.errors import Ldr2hdrError
from model.panorama import reconstruct_views
from model.reconstructor import ClipReconstructor, Predicted, Reconstructor
from model.rendering import Rendered, Rendering

_KEPT: ContextVar[dict[tuple[object, ...], list[Reconstructor]] | None] = ContextVar("kept", default=None)
_DECIDING = ("device", "precision", "tile", "overlap", "memory", "gamma", "transfer", "working_size", "threshold")


@contextmanager
def kept() -> Iterator[None]:
    """Within it, this thread's next run takes the last one's `reconstructors` where it asks for the same ones.

    For a process that converts again and again, one run at a time in each thread. They are not taken where a setting
    had to be lowered: a run's bytes must not depend on the one before.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def reconstructors(options: ConvertOptions, notify: Callable[[str], None] | None = None) -> list[Reconstructor]:
    """One for each device of the options. Raises Ldr2hdrError for weights or a device that cannot be used."""
    last = _KEPT.get()
    weights = DEFAULT_WEIGHTS if options.weights is None else options.weights
    if last is None or not os.path.isfile(weights):  # noqa: PTH113 - Path.is_file raises where a path is too long
        return _made(options, notify)

    def lowered(message: str) -> None:
        last.clear()
        if notify is not None:
            notify(message)

    key = (weights_sha256(weights), *(getattr(options, name) for name in _DECIDING))
    if (found := last.get(key)) is None:
        last.clear()
        found = last[key] = _made(options, lowered)
    for one in found:
        one.notify = lowered
    return found


def _made(options: ConvertOptions, notify: Callable[[str], None] | None) -> list[Reconstructor]:
    net = load_network(options.weights)
    working_size = usual_working_size(options.weights)
    if options.working_size != "auto":
        working_size = None if options.working_size == "off" else int(options.working_size)
    made = []
    for device in devices(options.device):
        try:
            reconstructor = Reconstructor(
                net,
                device,
                options.precision,
                "auto" if options.tile == "auto" else int(options.tile),
                options.overlap,
                memory=memory_bytes(options.memory),
                host_memory=machine_memory(),
                gamma=options.gamma,
                transfer="srgb" if options.transfer == "auto" else options.transfer,  # of a picture that says nothing
                working_size=working_size,
                threshold=options.threshold,
                notify=notify,
            )
        except (RuntimeError, AssertionError, ValueError) as error:  # torch's ways to say that a device is not there
            reason = str(error).splitlines()[0]
            raise Ldr2hdrError(f"--device {device}: cannot be used ({reason}); try --device auto.") from None
        made.append(reconstructor)
    return made


@dataclass
class _Seen:
    """A frame of a clip that something is clipped in: what its motion is measured from, once it is down."""

    small: Down
    prepared: np.ndarray | None = None

    def picture(self) -> np.ndarray:
        if self.prepared is None:
            self.prepared = as_measured(self.small.wait()[0].numpy())
        return self.prepared


class Network:
    """The network as the pipeline calls it: one copy a device, and the frames of a clip with those before them.

    The motion between two frames does not hang on what the network makes of them. It is measured ahead, by as many
    threads as there are cores, as soon as both are up; what is left to be done in order is the blend.
    """

    def __init__(
        self,
        reconstructors: list[Reconstructor],
        temporal: Literal["auto", "off", "strong"],
        rendering: Callable[[SourceInfo], Rendering],
        half: bool,
    ) -> None:
        self.workers = len(reconstructors)
        self.ahead = 0 if temporal == "off" else cores()
        self._any, self._temporal, self._rendering, self._half = reconstructors[0], temporal, rendering, half
        # Each copy with the clip that it is at, and what converts that clip's frames: itself where it is at a still.
        self._free: queue.SimpleQueue[tuple[Reconstructor, Path | None, Reconstructor | ClipReconstructor]]
        self._free = queue.SimpleQueue()
        for one in reconstructors:
            self._free.put((one, None, one))
        self._clip: Path | None = None
        self._last: int | None = None  # the frame of that clip that the filter has had last
        self._turn = threading.Lock()
        self._seen: dict[tuple[Path, int], _Seen] = {}
        self._motions: dict[tuple[Path, int], Future[Motion | None]] = {}  # to the frame from the one before it
        self._measuring = ThreadPoolExecutor(self.ahead, "motion") if self.ahead else None

    def predict(self, work: Work) -> Predicted:
        if work.info.is_hdr:  # it holds all its light
            predicted = self._any.predicted(work.frame.codes, None)
            return predicted._replace(clipped=torch.zeros_like(predicted.clipped))
        reconstructor, clip, predictor = self._free.get()
        if work.clip != clip:
            clip, predictor = work.clip, reconstructor if work.clip is None else reconstructor.clip()
        try:
            if work.info.panorama:
                log = reconstruct_views(
                    reconstructor.predict_log, work.frame.pixels, reconstructor.threshold, reconstructor.device
                )
                predicted = reconstructor.predicted(work.frame.codes, log)
            else:
                predicted = predictor.predict(work.frame.codes)
        finally:
            self._free.put((reconstructor, clip, predictor))
        if work.clip is not None and self._measuring is not None and predicted.log_hdr is not None:
            self._measure_ahead(work.clip, work.number, predicted)
        return predicted

    def finish(self, work: Work, predicted: Predicted) -> Rendered:
        if (temporal_filter := self._filter_of(work)) is not None:
            clip, last = self._clip, self._last
            self._last = work.number
            clipped, log = predicted.clipped, predicted.log_hdr
            if predicted.ldr.device != self._any.device:  # of another GPU
                clipped, log = clipped.to(self._any.device), None if log is None else log.to(self._any.device)
                predicted = Predicted(predicted.ldr.to(self._any.device), clipped, log)
            log = temporal_filter.blend(work.number, clipped, log, lambda: self._motion(clip, last, work.number))
            predicted = predicted._replace(log_hdr=log)
            self._forget(before=work.number)
        own = own_light(work.frame, work.info, self._any.device)
        return self._any.render(predicted, self._rendering(work.info), own, half=self._half)

    def lose(self, work: Work) -> None:
        if (temporal_filter := self._filter_of(work)) is not None:
            temporal_filter.lose(work.number, f"frame {work.frame_number}")

    def close(self) -> None:
        if self._measuring is not None:
            self._measuring.shutdown(cancel_futures=True)

    def _measure_ahead(self, clip: Path, number: int, predicted: Predicted) -> None:
        with torch.inference_mode():
            seen = _Seen(Down(reduced(predicted.ldr)))
        with self._turn:
            self._seen[clip, number] = seen
            for later in (number, number + 1):
                before, now = self._seen.get((clip, later - 1)), self._seen.get((clip, later))
                if before is not None and now is not None and self._measuring is not None:
                    self._motions[clip, later] = self._measuring.submit(_between, before, now)

    def _motion(self, clip: Path | None, last: int | None, number: int) -> Motion | None:
        """From the last frame to this one; measured now where one between them could not be read."""
        with self._turn:
            ahead = self._motions.get((clip, number)) if clip is not None and last == number - 1 else None
            before, now = (self._seen.get((clip, one)) if clip and one is not None else None for one in (last, number))
        if ahead is not None:
            return ahead.result()
        return None if before is None or now is None else _between(before, now)

    def _forget(self, before: int) -> None:
        with self._turn:
            for known in (self._seen, self._motions):
                for key in [key for key in known if key[0] == self._clip and key[1] < before]:
                    del known[key]  # type: ignore[attr-defined]

    def _filter_of(self, work: Work) -> TemporalFilter | None:
        if work.clip is None or self._temporal == "off" or work.info.is_hdr:
            return None
        if work.clip != self._clip:
            with self._turn:
                for known in (self._seen, self._motions):
                    for key in [key for key in known if key[0] == self._clip]:
                        del known[key]  # type: ignore[attr-defined]
            self._clip, self._last = work.clip, None
            self._filter = TemporalFilter(self._temporal, self._any.threshold, self._any.config.floor)
        return self._filter


def _between(before: _Seen, now: _Seen) -> Motion | None:
    return measure(before.picture(), now.picture())


def reconstruct(ldr: np.ndarray) -> np.ndarray:
    """What the camera clipped, reconstructed as `ldr2hdr convert` does it without options.

    ldr: H×W×3, display-encoded: uint8, uint16, or float in [0, 1]; any H, W ≥ 1. Returns float32 H×W×3, scene-linear,
    LDR white 1.0. The network is loaded at the first call and kept; calls from several threads take turns. Raises
    ValueError for another shape or type, or for values outside [0, 1].
    """
    ldr = np.asarray(ldr)
    is_code = ldr.dtype in (np.uint8, np.uint16)
    if not is_code and not np.issubdtype(ldr.dtype, np.floating):
        raise ValueError(f"expected uint8, uint16 or float values, not {ldr.dtype}")
    if ldr.ndim != 3 or ldr.shape[2] != 3:
        raise ValueError(f"expected an H×W×3 picture, not one of shape {ldr.shape}")
    with _TURN:
        usual = _usual()
        return usual.render(usual.predict(Codes(ldr) if is_code else ldr)).fetch().pixels


_TURN = threading.Lock()


@cache
def _usual() -> Reconstructor:
    return reconstructors(ConvertOptions())[0]
