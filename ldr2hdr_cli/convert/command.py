"""`ldr2hdr convert`: from what was typed to a run, its display and its exit status."""

import os
import queue
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ldr2hdr_cli.convert import job, pipeline
from ldr2hdr_cli.convert.display import Display
from ldr2hdr_cli.convert.temporal import TemporalFilter
from ldr2hdr_cli.media.exr import frame_attributes, write_exr
from ldr2hdr_cli.media.preview import preview_strip, write_preview
from ldr2hdr_cli.media.radiance import write_radiance
from ldr2hdr_cli.media.sources import find_inputs, parse_frames
from ldr2hdr_cli.memory import keep_freed_memory
from model import __version__
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.convert.temporal import Temporal
    from model.exposure import Transfer
    from model.reconstructor import ClipReconstructor, Precision, Reconstructor


@dataclass(frozen=True)
class Request:
    """What was typed, one field an option of `ldr2hdr convert`."""

    inputs: list[str]
    output: Path
    recursive: bool
    frames: str | None
    every: int
    start_number: int
    deinterlace: bool
    fps: Fraction | None
    weights: Path | None
    method: str
    device: str
    precision: "Precision"
    tile: str
    overlap: int
    working_size: str
    memory: str | None
    transfer: "Transfer"
    gamma: float
    exposure: float
    temporal: "Temporal"
    format: str
    half: bool
    compression: str
    dwa_level: float
    preview: Literal["none", "filmic", "plain"]
    max_pixels: int
    max_frames: int
    overwrite: bool
    verify: bool
    dry_run: bool
    quiet: bool
    as_json: bool
    log_file: Path | None
    encoders: int
    debug: bool


def convert(request: Request) -> int:
    """Run it. Returns the exit status: 0 all done, 1 some failed, 130 or 143 interrupted."""
    stop = threading.Event()
    with Display(request.quiet, request.as_json, request.log_file, request.debug) as display, _signals(stop) as caught:
        display.log(f"ldr2hdr {__version__}: {_command()}")
        inputs = find_inputs(request.inputs, recursive=request.recursive)
        first, last = parse_frames(request.frames) if request.frames else (None, None)
        selection = job.Selection(first, last, request.every, request.start_number)
        if any(one.kind == "video" for one in inputs):
            selection.indices()  # a range that cannot be is misuse, not a failed clip
        if request.fps and not any(one.sequence for one in inputs):
            raise Ldr2hdrError(
                "--fps is for numbered sequences such as plate.%04d.png, but none is given: leave it out."
            )
        items = job.plan(inputs, request.output, f".{request.format}", request.start_number)
        if kept := [item for item in items if item.keeps_suffix]:
            path, name = kept[0].input.path, kept[0].output(0).name
            shared = (
                f"{path}: {len(kept)} inputs would share names with others; their results keep the suffix, as {name}"
            )
            display.show(pipeline.Note(kept[0], shared))
        if request.dry_run:
            return _dry_run(items, display)
        with job.lock(request.output):
            _run(items, selection, request, display, stop)
        again = _command(without="--overwrite")  # what was made again a moment ago is finished
        display.finish(retry=again)
        if caught:
            display.say(f"Interrupted; what is finished stays. To go on: {again}")
            return 128 + caught[0]
        return 1 if display.failures else 0


def _run(
    items: list[job.Item], selection: job.Selection, request: Request, display: Display, stop: threading.Event
) -> None:
    has_clip = any(item.input.kind == "video" or (request.fps and item.input.sequence) for item in items)
    is_filtered = has_clip and request.temporal != "off" and request.method == "network"
    operator, settings, threshold = _operator(request, is_filtered, display)
    options = pipeline.Options(
        selection,
        request.deinterlace,
        request.overwrite,
        request.verify,
        encoders=request.encoders,
        max_pixels=request.max_pixels,
        max_frames=request.max_frames,
        fps=request.fps,
        is_filtered=is_filtered,
        stop=stop,
    )
    keep_freed_memory()
    manifest = job.Manifest.read(request.output)
    display.begin(len(items))
    try:
        write = _writer(request, settings)
        for event in pipeline.run(items, operator, write, manifest, settings, options, threshold):
            display.show(event)
    finally:
        manifest.close()


def _operator(request: Request, is_filtered: bool, display: Display) -> tuple[pipeline.Operator, job.Settings, float]:
    """The operator that was asked for, the settings that decide the bytes, and the threshold of its mask."""
    decided: dict[str, Any] = {
        "method": request.method,
        "transfer": request.transfer,
        "gamma": request.gamma,
        "exposure": request.exposure,
        "format": request.format,
        "half": request.half,
        "compression": request.compression,
        "dwa_level": request.dwa_level,
        "deinterlace": request.deinterlace,
        "temporal": _temporal(request) if is_filtered else "off",
        "fps": str(request.fps or ""),
        "preview": request.preview,
        "version": __version__,
    }
    if request.method != "network":
        from ldr2hdr_cli.convert.operators import THRESHOLD

        return _Classical(request), job.Settings(**decided), THRESHOLD
    from model.checkpoint import load_network, usual_working_size, weights_sha256
    from model.reconstructor import Reconstructor, devices

    net = load_network(request.weights)
    working_size = usual_working_size(request.weights)
    if request.working_size != "auto":
        working_size = None if request.working_size == "off" else int(request.working_size)
    reconstructors = []
    for device in devices(request.device):
        try:
            reconstructor = Reconstructor(
                net,
                device,
                request.precision,
                "auto" if request.tile == "auto" else int(request.tile),
                request.overlap,
                memory=_bytes(request.memory),
                gamma=request.gamma,
                transfer=request.transfer,
                working_size=working_size,
                notify=display.say,
            )
        except (RuntimeError, AssertionError, ValueError) as error:  # torch's ways to say that a device is not there
            reason = str(error).splitlines()[0]
            raise Ldr2hdrError(f"--device {device}: cannot be used ({reason}); try --device auto.") from None
        reconstructors.append(reconstructor)
    settings = job.Settings(
        **decided,
        weights=weights_sha256(request.weights),
        precision=reconstructor.precision,
        tile=request.tile,
        overlap=request.overlap,
        working_size=working_size or "off",
        memory=request.memory or "auto",
    )
    network = _Network(reconstructors, request.temporal if is_filtered else "off")
    return network, settings, reconstructor.config.mask_threshold


class _Network:
    """The network as the pipeline calls it: one copy a device, and the frames of a clip with those before them."""

    def __init__(self, reconstructors: "list[Reconstructor]", temporal: "Temporal") -> None:
        self.workers = len(reconstructors)
        self._any, self._temporal = reconstructors[0], temporal
        # Each copy with the clip that it is at, and what converts that clip's frames: itself where it is at a still.
        self._free: queue.SimpleQueue[tuple[Reconstructor, Path | None, Reconstructor | ClipReconstructor]]
        self._free = queue.SimpleQueue()
        for one in reconstructors:
            self._free.put((one, None, one))
        self._clip: Path | None = None

    def predict(self, work: pipeline.Work) -> np.ndarray | None:
        reconstructor, clip, predictor = self._free.get()
        if work.clip != clip:
            clip, predictor = work.clip, reconstructor if work.clip is None else reconstructor.clip()
        try:
            return predictor.predict_log(work.frame.pixels)
        finally:
            self._free.put((reconstructor, clip, predictor))

    def finish(self, work: pipeline.Work, predicted: np.ndarray | None) -> np.ndarray:
        if (temporal_filter := self._filter_of(work)) is not None:
            predicted = temporal_filter.push(work.number, work.frame.pixels, predicted)
        return self._any.compose(work.frame.pixels, predicted)

    def lose(self, work: pipeline.Work) -> None:
        if (temporal_filter := self._filter_of(work)) is not None:
            temporal_filter.lose(work.number, f"frame {work.frame_number}")

    def _filter_of(self, work: pipeline.Work) -> TemporalFilter | None:
        if work.clip is None or self._temporal == "off":
            return None
        if work.clip != self._clip:
            config = self._any.config
            self._clip, self._filter = work.clip, TemporalFilter(self._temporal, config.mask_threshold, config.floor)
        return self._filter


class _Classical:
    """One of the operators as the pipeline calls it."""

    workers = 1

    def __init__(self, request: Request) -> None:
        self._request = request

    def predict(self, work: pipeline.Work) -> np.ndarray:
        from ldr2hdr_cli.convert.operators import expand
        from model.exposure import linearise

        ldr, request = work.frame.pixels, self._request
        return expand(ldr, request.method, linear=linearise(ldr, request.transfer, request.gamma))

    def finish(self, _work: pipeline.Work, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def lose(self, work: pipeline.Work) -> None:
        """No frame hangs on another."""


def _temporal(request: Request) -> str:
    """All that decides what a frame takes from those before it."""
    if request.every == 1:
        return request.temporal
    return f"{request.temporal}, every {request.every} of {request.frames or 'all'}"


def _writer(request: Request, settings: job.Settings) -> Callable[[pipeline.Work, np.ndarray], int]:
    """How one frame is written; the preview first, so that a picture that stands there finished has one."""
    strings = settings.as_strings()

    def write(work: pipeline.Work, hdr: np.ndarray) -> int:
        hdr = hdr * np.float32(2**request.exposure) if request.exposure else hdr
        if request.preview != "none":
            strip = preview_strip(
                work.frame.pixels, hdr, curve=request.preview, transfer=request.transfer, gamma=request.gamma
            )
            write_preview(work.output.with_suffix(".preview.png"), strip)
        plate = work.plate
        attributes = frame_attributes(
            chromaticities=plate.chromaticities,
            frame_rate=Fraction(plate.frame_rate) if plate.frame_rate else None,
            timecode=work.frame.timecode,
            pixel_aspect=plate.pixel_aspect,
            source=work.item.input.path.name,
            frame_number=work.frame_number,
            weights_sha256=settings.weights,
            settings=strings,
            seconds=work.frame.seconds,
        )
        if request.format == "hdr":
            write_radiance(work.output, hdr, attributes)
            return 0
        return write_exr(
            work.output,
            hdr,
            work.frame.alpha,
            attributes,
            half=request.half,
            compression=request.compression,
            dwa_level=request.dwa_level,
        )

    return write


@contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM asks the run to finish what is in hand; a second one leaves at once.

    A thread listens, since Python's own handlers wait for the main thread, which may be inside the network.
    """
    caught: list[int] = []
    listener, teller = socket.socketpair()
    teller.setblocking(False)

    def listen() -> None:
        while received := listener.recv(1):
            if received[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            if caught:
                tell(b"\x1b[?25h" if sys.stderr.isatty() else b"")  # the live display hides the cursor
                os._exit(128 + received[0])
            caught.append(received[0])
            stop.set()
            tell(b"Finishing what is in hand; once more leaves at once.\n")

    def tell(text: bytes) -> None:
        with suppress(OSError):
            os.write(2, text)

    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    wake = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        teller.close()
        thread.join()
        listener.close()


def _dry_run(items: list[job.Item], display: Display) -> int:
    for item in items:
        target = item.output(0) if item.input.kind == "still" else item.folder / f"{item.stem}.######{item.suffix}"
        display.plan(item.input.path, target)
    return 0


def _bytes(text: str | None) -> int | None:
    """ "6G", "512M", "1.5g" → bytes."""
    if text is None or text == "auto":
        return None
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)i?b?", text.strip().lower())
    amount = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")) if found else 0
    if amount == 0:
        raise Ldr2hdrError(f"--memory {text}: not an amount of memory; write it like 6G or 512M.")
    return amount


def _command(without: str = "") -> str:
    """What was typed, for a shell."""
    return " ".join(_quoted(word) for word in ["ldr2hdr", *sys.argv[1:]] if word != without)


def _quoted(word: str) -> str:
    """As shlex.quote; control characters and bytes that are no UTF-8 in bash's $'...', so that it stays one line."""
    if word.isprintable():
        return shlex.quote(word)

    def escaped(character: str) -> str:
        if character in "\\'":
            return "\\" + character
        data = character.encode("utf-8", "surrogateescape")
        return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in data)

    return "$'" + "".join(map(escaped, word)) + "'"
