"""decode → reconstruct → encode, overlapped, in bounded memory; one failure stays one failure.

A thread decodes ahead into a short queue; the calling thread runs the network; a few threads encode, since neither
FFmpeg, torch nor OpenEXR holds the interpreter lock while it works.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ldr2hdr_cli.job import Item, Manifest, Selection, Settings, fingerprint, sha256
from ldr2hdr_cli.sources import Frame, Plate, probe, read_frames, read_still
from model.errors import Ldr2hdrError

Expand = Callable[[np.ndarray], np.ndarray]
"""H×W×3 display-encoded [0, 1] → H×W×3 linear: the network or another operator."""


@dataclass(frozen=True)
class Work:
    """One frame on its way."""

    item: Item
    plate: Plate
    frame: Frame
    output: Path


@dataclass(frozen=True)
class Done:
    """One file written."""

    item: Item
    output: Path
    frame: int | None
    megapixels: float
    clipped: float  # share of pixels with a channel above the mask's threshold
    peak: float  # largest value, LDR white = 1.0
    clamped: int  # values above half's range
    entry: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """One input, or the rest of one clip, that could not be converted."""

    item: Item
    message: str
    frame: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that stands there already, finished, with the same settings."""

    item: Item
    output: Path


@dataclass(frozen=True)
class Note:
    """Something assumed about an input."""

    item: Item
    message: str


Event = Done | Failed | Skipped | Note


@dataclass
class Options:
    """How a run behaves, apart from what decides the bytes."""

    selection: Selection = field(default_factory=Selection)
    deinterlace: bool = False
    overwrite: bool = False
    verify: bool = False
    encoders: int = 2
    max_pixels: int = 2**28
    stop: threading.Event = field(default_factory=threading.Event)


def run(
    items: Sequence[Item],
    expand: Expand,
    write: Callable[[Work, np.ndarray], int],
    manifest: Manifest,
    settings: Settings,
    options: Options,
    threshold: float,
) -> Iterator[Event]:
    """Convert everything, and tell what became of it, in the order of the inputs.

    expand: the operator. write: encodes one frame and returns how many values it clamped. threshold: α, above which a
    pixel counts as clipped. Ends early, with what is in hand finished, when `options.stop` is set.
    """
    with ThreadPoolExecutor(options.encoders, "encode") as encoders:
        pending: list[Future[Event]] = []
        for found in _ahead(_decoded(items, manifest, settings, options), options.stop):
            if isinstance(found, Work):
                pending.append(_start(found, expand, write, encoders, threshold))
            else:
                pending.append(_known(found))
            # In order, and never more frames in hand than encoders can take.
            while pending and (pending[0].done() or len(pending) > options.encoders + 1):
                yield _finish(pending.pop(0), manifest, settings)
        for future in pending:
            yield _finish(future, manifest, settings)


def _decoded(
    items: Sequence[Item], manifest: Manifest, settings: Settings, options: Options
) -> Iterator[Work | Failed | Skipped | Note]:
    for item in items:
        try:
            frames = _still(item, options) if item.input.kind == "still" else _clip(item, manifest, settings, options)
            yield from _missing(item, frames, manifest, settings, options)
        except Ldr2hdrError as error:
            yield Failed(item, str(error))
        except (OSError, MemoryError) as error:
            yield Failed(item, f"{item.input.path}: {error or 'not enough memory'}.")


def _missing(
    item: Item, frames: Iterator[Work | Note | Skipped], manifest: Manifest, settings: Settings, options: Options
) -> Iterator[Work | Skipped | Note]:
    if item.input.kind == "still" and _finished(item, 0, manifest, settings, options):
        yield Skipped(item, item.output(0))
        return
    for found in frames:
        if isinstance(found, Work) and _finished(item, found.frame.index, manifest, settings, options):
            yield Skipped(item, found.output)
        else:
            yield found


def _finished(item: Item, index: int, manifest: Manifest, settings: Settings, options: Options) -> bool:
    if options.overwrite:
        return False
    return manifest.finished(item.output(index), item.input.path, settings, options.verify)


def _still(item: Item, options: Options) -> Iterator[Work | Note]:
    plate, frame = read_still(item.input.path, max_pixels=options.max_pixels)
    for note in plate.notes:
        yield Note(item, f"{item.input.path}: {note}")
    yield Work(item, plate, frame, item.output(0))


def _clip(item: Item, manifest: Manifest, settings: Settings, options: Options) -> Iterator[Work | Note | Skipped]:
    plate = probe(item.input.path, deinterlace=options.deinterlace, max_pixels=options.max_pixels)
    for note in plate.notes:
        yield Note(item, f"{item.input.path}: {note}")
    first, last = options.selection.indices()
    every = options.selection.every
    # What stands finished at the front of the clip need not be decoded again.
    while (last is None or first <= last) and _finished(item, first, manifest, settings, options):
        yield Skipped(item, item.output(first))
        first += every
        if plate.frame_count is not None and first >= plate.frame_count:
            last = first - 1
    if last is not None and first > last:
        return
    frames = read_frames(
        item.input.path,
        first=first,
        last=last,
        every=every,
        deinterlace=options.deinterlace,
        max_pixels=options.max_pixels,
        start_number=item.start_number,
    )
    for frame in frames:
        yield Work(item, plate, frame, item.output(frame.index))


def _ahead(source: Iterator[Any], stop: threading.Event, depth: int = 2) -> Iterator[Any]:
    """The same items, made by a thread that runs at most `depth` ahead; it ends soon after `stop`."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    end = object()
    gone = threading.Event()

    def put(thing: Any) -> bool:
        while not gone.is_set():
            try:
                ready.put(thing, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for thing in source:
                if stop.is_set() or not put(thing):
                    return
        except BaseException as error:  # handed to the reader below, who raises it
            put(error)
        finally:
            put(end)

    thread = threading.Thread(target=fill, name="decode", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                thing = ready.get(timeout=0.2)
            except queue.Empty:
                continue
            if thing is end:
                return
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        gone.set()
        thread.join(timeout=5)


def _start(
    work: Work, expand: Expand, write: Callable[[Work, np.ndarray], int], encoders: ThreadPoolExecutor, threshold: float
) -> "Future[Event]":
    """Run the network here, and leave the encoding to a thread."""
    try:
        hdr = expand(work.frame.pixels)
    except Ldr2hdrError as error:
        return _known(_failed(work, str(error)))
    except (MemoryError, RuntimeError) as error:
        return _known(
            _failed(work, f"{work.item.input.path}: the network could not run ({error}); try --memory or --tile.")
        )
    return encoders.submit(_encode, work, hdr, write, threshold)


def _encode(work: Work, hdr: np.ndarray, write: Callable[[Work, np.ndarray], int], threshold: float) -> Event:
    height, width = hdr.shape[:2]
    try:
        work.output.parent.mkdir(parents=True, exist_ok=True)
        clamped = write(work, hdr)
        entry = _entry(work)
    except Ldr2hdrError as error:
        return _failed(work, str(error))
    except OSError as error:
        return _failed(
            work, f"{work.output} cannot be written ({error.strerror}): allow writing, or choose another -o."
        )
    clipped = float(np.any(work.frame.pixels > threshold, axis=2).mean())
    return Done(work.item, work.output, _number(work), height * width / 1e6, clipped, float(hdr.max()), clamped, entry)


def _entry(work: Work) -> dict[str, Any]:
    """What the manifest keeps of a finished file."""
    size, modified = fingerprint(work.item.input.path)
    return {
        "source": str(work.item.input.path),
        "size": size,
        "modified": modified,
        "frame": _number(work),
        "seconds": work.frame.seconds,
        "bytes": work.output.stat().st_size,
        "sha256": sha256(work.output),
    }


def _number(work: Work) -> int | None:
    return work.item.input.number if work.item.input.kind == "still" else work.item.start_number + work.frame.index


def _failed(work: Work, message: str) -> Failed:
    return Failed(work.item, message, _number(work))


def _known(event: Event) -> "Future[Event]":
    future: Future[Event] = Future()
    future.set_result(event)
    return future


def _finish(future: "Future[Event]", manifest: Manifest, settings: Settings) -> Event:
    event = future.result()
    if isinstance(event, Done):
        manifest.add({"output": manifest.name(event.output), **event.entry, "settings": settings.digest()})
    return event
