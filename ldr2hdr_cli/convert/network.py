"""The network with the options of `convert`: for the pipeline, and for one picture in memory."""

import queue
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from ldr2hdr_cli.convert.gain_map import with_own_light
from ldr2hdr_cli.convert.rendering import rendering_of
from ldr2hdr_cli.convert.temporal import TemporalFilter
from ldr2hdr_cli.convert.worklist import Work
from ldr2hdr_cli.options import ConvertOptions, memory_bytes
from model.checkpoint import load_network, usual_working_size
from model.errors import Ldr2hdrError
from model.reconstructor import ClipReconstructor, Reconstructor, devices


def reconstructors(options: ConvertOptions, notify: Callable[[str], None] | None = None) -> list[Reconstructor]:
    """One for each device of the options. Raises Ldr2hdrError for weights or a device that cannot be used."""
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
                gamma=options.gamma,
                transfer=options.transfer,
                working_size=working_size,
                notify=notify,
            )
        except (RuntimeError, AssertionError, ValueError) as error:  # torch's ways to say that a device is not there
            reason = str(error).splitlines()[0]
            raise Ldr2hdrError(f"--device {device}: cannot be used ({reason}); try --device auto.") from None
        made.append(reconstructor)
    return made


class Network:
    """The network as the pipeline calls it: one copy a device, and the frames of a clip with those before them."""

    def __init__(
        self,
        reconstructors: list[Reconstructor],
        options: ConvertOptions,
        temporal: Literal["auto", "off", "strong"],
    ) -> None:
        self.workers = len(reconstructors)
        self._options = options
        self._any, self._temporal = reconstructors[0], temporal
        # Each copy with the clip that it is at, and what converts that clip's frames: itself where it is at a still.
        self._free: queue.SimpleQueue[tuple[Reconstructor, Path | None, Reconstructor | ClipReconstructor]]
        self._free = queue.SimpleQueue()
        for one in reconstructors:
            self._free.put((one, None, one))
        self._clip: Path | None = None

    def predict(self, work: Work) -> np.ndarray | None:
        if work.info.is_hdr:
            return None
        reconstructor, clip, predictor = self._free.get()
        if work.clip != clip:
            clip, predictor = work.clip, reconstructor if work.clip is None else reconstructor.clip()
        try:
            return predictor.predict_log(work.frame.pixels)
        finally:
            self._free.put((reconstructor, clip, predictor))

    def finish(self, work: Work, predicted: np.ndarray | None) -> np.ndarray:
        if (temporal_filter := self._filter_of(work)) is not None:
            predicted = temporal_filter.push(work.number, work.frame.pixels, predicted)
        encoding = rendering_of(work.info, self._options).encoding
        hdr = self._any.compose(work.frame.pixels, predicted, encoding)
        return with_own_light(work.frame, work.info, hdr, encoding, self._any.config.mask_threshold)

    def lose(self, work: Work) -> None:
        if (temporal_filter := self._filter_of(work)) is not None:
            temporal_filter.lose(work.number, f"frame {work.frame_number}")

    def _filter_of(self, work: Work) -> TemporalFilter | None:
        if work.clip is None or self._temporal == "off" or work.info.is_hdr:
            return None
        if work.clip != self._clip:
            config = self._any.config
            self._clip, self._filter = work.clip, TemporalFilter(self._temporal, config.mask_threshold, config.floor)
        return self._filter


def reconstruct(ldr: np.ndarray) -> np.ndarray:
    """What the camera clipped, reconstructed as `ldr2hdr convert` does it without options.

    ldr: H×W×3, display-encoded: uint8, uint16, or float in [0, 1]; any H, W ≥ 1. Returns float32 H×W×3, scene-linear,
    LDR white 1.0. The network is loaded at the first call and kept; calls from several threads take turns. Raises
    ValueError for another shape or type, or for values outside [0, 1].
    """
    ldr = np.asarray(ldr)
    if ldr.dtype in (np.uint8, np.uint16):
        ldr = ldr.astype(np.float32) / np.float32(np.iinfo(ldr.dtype).max)
    elif not np.issubdtype(ldr.dtype, np.floating):
        raise ValueError(f"expected uint8, uint16 or float values, not {ldr.dtype}")
    with _TURN:
        return _usual().reconstruct(ldr)


_TURN = threading.Lock()


@cache
def _usual() -> Reconstructor:
    return reconstructors(ConvertOptions())[0]
