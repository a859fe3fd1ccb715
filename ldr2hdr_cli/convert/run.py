"""`convert`: inputs in, an iterator of events out. The command is a display and signals around it."""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ldr2hdr_cli.convert import job, pipeline
from ldr2hdr_cli.convert.events import Event, Message, Note, Started
from ldr2hdr_cli.convert.gain_map import with_own_light
from ldr2hdr_cli.convert.rendering import rendering_of
from ldr2hdr_cli.convert.worklist import Options, Work
from ldr2hdr_cli.media.exr import frame_attributes, write_exr
from ldr2hdr_cli.media.preview import preview_strip, write_preview
from ldr2hdr_cli.media.radiance import write_radiance
from ldr2hdr_cli.media.sources import find_inputs, parse_frames
from ldr2hdr_cli.options import ConvertOptions, frame_rate
from model import __version__
from model.errors import Ldr2hdrError

Inputs = str | os.PathLike | Sequence[str | os.PathLike]


def convert(
    inputs: Inputs,
    output: str | os.PathLike,
    options: ConvertOptions = ConvertOptions(),
    *,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Convert photographs and clips, and tell what became of each, in their order: what `ldr2hdr convert` runs.

    The work is done while the iterator is read, in any thread: `for event in convert(...)`. A fault of one input is a
    `Failed`, and the others go on. Setting `stop` from any thread ends it early, and so does closing the iterator: what
    is in hand is finished and recorded, and the directory is released. The same call again does only what is missing.

    inputs: files, directories, globs, or sequences such as plate.%04d.png. output: the directory for the results.

    Raises Ldr2hdrError, from the first step on, where nothing can be converted: no such input, weights that cannot be
    read, a directory that cannot be written or is in use.
    """
    out, stop = Path(output), stop or threading.Event()
    items, selection = plan(inputs, out, options)
    yield from shared_names(items)
    with job.lock(out):
        yield from _run(items, selection, out, options, stop)


def plan(inputs: Inputs, output: Path, options: ConvertOptions) -> tuple[list[job.Item], job.Selection]:
    """Every input with its outputs, and the frames that are asked for. Raises Ldr2hdrError."""
    words = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    found = find_inputs([os.fspath(word) for word in words], recursive=options.recursive)
    first, last = parse_frames(options.frames) if options.frames else (None, None)
    selection = job.Selection(first, last, options.every, options.start_number)
    if any(one.kind == "video" for one in found):
        selection.indices()  # a range that cannot be is misuse, not a failed clip
    if options.fps and not any(one.sequence for one in found):
        raise Ldr2hdrError("--fps is for numbered sequences such as plate.%04d.png, but none is given: leave it out.")
    return job.plan(found, output, f".{options.format}", options.start_number), selection


def shared_names(items: Sequence[job.Item]) -> Iterator[Note]:
    """A note where results keep the suffixes of their sources."""
    if kept := [item for item in items if item.keeps_suffix]:
        path, name = kept[0].input.path, kept[0].output(0).name
        shared = f"{path}: {len(kept)} inputs would share names with others; their results keep the suffix, as {name}"
        yield Note(kept[0], shared)


def _run(
    items: list[job.Item], selection: job.Selection, out: Path, options: ConvertOptions, stop: threading.Event
) -> Iterator[Event]:
    has_clip = any(item.input.kind == "video" or (options.fps and item.input.sequence) for item in items)
    is_filtered = has_clip and options.temporal != "off" and options.method == "network"
    messages: queue.SimpleQueue[str] = queue.SimpleQueue()
    operator, settings, threshold = _operator(options, is_filtered, messages.put)
    how = Options(
        selection,
        options.deinterlace,
        options.overwrite,
        options.verify,
        encoders=options.encoders,
        max_pixels=options.max_pixels,
        max_frames=options.max_frames,
        fps=frame_rate(options.fps),
        from_hdr=options.from_hdr,
        gain_map=options.gain_map,
        is_filtered=is_filtered,
        stop=stop,
    )
    manifest = job.Manifest.read(out)
    events = pipeline.run(items, operator, _writer(options, settings), manifest, settings, how, threshold)
    try:
        yield Started(len(items))
        for event in events:
            yield from _waiting(messages)
            yield event
        yield from _waiting(messages)
    except GeneratorExit:  # the caller has closed the iterator
        stop.set()
        for _ in events:  # what is in hand is still recorded
            pass
        raise
    finally:
        manifest.close()


def _waiting(messages: "queue.SimpleQueue[str]") -> Iterator[Message]:
    while not messages.empty():
        yield Message(messages.get())


def _operator(
    options: ConvertOptions, is_filtered: bool, notify: Callable[[str], None]
) -> tuple[pipeline.Operator, job.Settings, float]:
    """The operator that was asked for, the settings that decide the bytes, and the threshold of its mask."""
    decided = {**options.deciding(), "temporal": _temporal(options) if is_filtered else "off", "version": __version__}
    if options.method != "network":
        from ldr2hdr_cli.convert.operators import THRESHOLD

        return _Classical(options), job.Settings({**decided, **_NO_NETWORK}), THRESHOLD
    from ldr2hdr_cli.convert.network import Network, reconstructors
    from model.checkpoint import weights_sha256

    networks = reconstructors(options, notify)
    decided["weights"] = weights_sha256(options.weights)
    decided["precision"] = networks[-1].precision
    decided["working_size"] = networks[-1].working_size or "off"
    network = Network(networks, options, options.temporal if is_filtered else "off")
    return network, job.Settings(decided), networks[-1].config.mask_threshold


_NO_NETWORK = {
    "weights": "",
    "precision": "fp32",
    "tile": "auto",
    "overlap": 128,
    "working_size": "off",
    "memory": "auto",
}
"""What the manifest of a classical operator says of the network's options, which do not decide its bytes."""


class _Classical:
    """One of the operators as the pipeline calls it."""

    workers = 1

    def __init__(self, options: ConvertOptions) -> None:
        self._options = options

    def predict(self, work: Work) -> np.ndarray:
        from ldr2hdr_cli.convert.operators import THRESHOLD, expand
        from model.exposure import linearise

        ldr, encoding = work.frame.pixels, rendering_of(work.info, self._options).encoding
        seen = linearise(ldr, encoding.transfer, encoding.gamma)
        hdr = seen if work.info.is_hdr else expand(ldr, self._options.method, linear=seen)
        return with_own_light(work.frame, work.info, hdr, encoding, THRESHOLD)

    def finish(self, _work: Work, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def lose(self, work: Work) -> None:
        """No frame hangs on another."""


def _temporal(options: ConvertOptions) -> str:
    """All that decides what a frame takes from those before it."""
    if options.every == 1:
        return options.temporal
    return f"{options.temporal}, every {options.every} of {options.frames or 'all'}"


def _writer(options: ConvertOptions, settings: job.Settings) -> Callable[[Work, np.ndarray], int]:
    """How one frame is written; the preview first, so that a picture that stands there finished has one."""
    strings = settings.as_strings()

    def write(work: Work, hdr: np.ndarray) -> int:
        hdr = hdr * np.float32(2**options.exposure) if options.exposure else hdr
        if options.preview:
            strip = preview_strip(
                work.frame.pixels, hdr, curve=options.preview_curve, transfer=options.transfer, gamma=options.gamma
            )
            write_preview(work.output.with_suffix(".preview.png"), strip)
        info = work.info
        attributes = frame_attributes(
            chromaticities=info.chromaticities,
            frame_rate=Fraction(info.frame_rate) if info.frame_rate else None,
            timecode=work.frame.timecode,
            pixel_aspect=info.pixel_aspect,
            source=work.item.input.path.name,
            frame_number=work.frame_number,
            weights_sha256=settings.weights,
            settings=strings,
            seconds=work.frame.seconds,
        )
        if options.format == "hdr":
            write_radiance(work.output, hdr, attributes)
            return 0
        return write_exr(
            work.output,
            hdr,
            work.frame.alpha,
            attributes,
            half=not options.float_,
            compression=options.compression,
            dwa_level=options.dwa_level,
        )

    return write
