"""decode → reconstruct → encode, overlapped, in bounded memory; one failure stays one failure.

A thread decodes ahead into a short queue; a thread for each device runs the network; the calling thread puts eq. 1 and
the frames of a clip together, in order; a few threads encode, since neither FFmpeg, torch nor OpenEXR holds the
interpreter lock while it works.
"""

import errno
import hashlib
import math
import queue
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ldr2hdr_cli.convert.job import (
    Item,
    Manifest,
    RunError,
    Selection,
    Settings,
    absolute,
    fingerprint,
    sha256,
    source_sha256,
)
from ldr2hdr_cli.convert.temporal import Depends, warm_up
from ldr2hdr_cli.media.exr import read_planes
from ldr2hdr_cli.media.sources import Frame, SourceInfo, probe, read_frames, read_still
from model.errors import Ldr2hdrError

# After these no other file can be written either: full, over quota, read-only, unplugged.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ESTALE}


@dataclass(frozen=True)
class Work:
    """One frame on its way."""

    item: Item
    plate: SourceInfo
    frame: Frame
    output: Path
    stamp: tuple[int, int]  # of the source, before it was read
    clip: Path | None = None  # that it is a frame of; None for a photograph
    number: int = 0  # of the frame among those of the clip that are taken, from its beginning
    is_warm_up: bool = False  # only there for the frames after it, and not written
    basis: str = ""  # digest of the other files that decide it

    @property
    def frame_number(self) -> int | None:
        """As the outputs count; None for a photograph."""
        item = self.item
        return item.input.number if item.input.kind == "still" else item.start_number + self.frame.index


class Operator(Protocol):
    """The network, or a classical operator.

    predict: what takes long, by itself; called from as many threads at once as `workers` says. finish: the frame,
    H×W×3, linear, from what `predict` returned; called with the frames in their order. lose: called in its place, or
    after it, for a frame that failed; `finish` raises temporal.Depends for those that cannot be made without it.
    """

    workers: int

    def predict(self, work: Work) -> Any: ...

    def finish(self, work: Work, predicted: Any) -> np.ndarray: ...

    def lose(self, work: Work) -> None: ...


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
    """One input, or the rest of one clip, that could not be converted.

    ends_run: nothing that comes after it can succeed, so the run stops here. cause: what our own code did not foresee.
    """

    item: Item
    message: str
    frame: int | None = None
    ends_run: bool = False
    cause: Exception | None = None


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
    max_frames: int = 2**20
    fps: Fraction | None = None  # numbered sequences are clips
    is_filtered: bool = False  # the frames of a clip depend on those before
    pixels: int = 48 * 2**20  # in hand at a time, 24 bytes each
    stop: threading.Event = field(default_factory=threading.Event)


def run(
    items: Sequence[Item],
    operator: Operator,
    write: Callable[[Work, np.ndarray], int],
    manifest: Manifest,
    settings: Settings,
    options: Options,
    threshold: float,
) -> Iterator[Event]:
    """Convert everything, and tell what became of it, in the order of the inputs.

    write: encodes one frame and returns how many values it clamped. threshold: α, above which a pixel counts as
    clipped. Ends early, with what is in hand finished, when `options.stop` is set, or after a failure that no other
    file can escape (`Failed.ends_run`).
    """
    encode = _Encoder(write, manifest, threshold, options.verify)
    room = _PixelBudget(options.pixels)
    with (
        ThreadPoolExecutor(operator.workers, "network") as network,
        ThreadPoolExecutor(options.encoders, "encode") as encoders,
    ):
        predicted: deque[tuple[Work, Future[Any]] | Event] = deque()
        encoded: deque[Future[Event]] = deque()

        def advance() -> None:
            """Hand the first that is predicted on to the encoders."""
            first = predicted.popleft()
            if not isinstance(first, tuple):
                encoded.append(_completed(first))
                return
            work, future = first
            result = _finished(operator, work, future)
            if isinstance(result, np.ndarray):
                encoded.append(encoders.submit(encode, work, result))
                encoded[-1].add_done_callback(lambda _future: room.leave(work))
            else:
                room.leave(work)
                encoded.extend([_completed(result)] if result is not None else [])

        def finish() -> Event:
            event = _recorded(encoded.popleft(), manifest, settings)
            if isinstance(event, Failed) and event.ends_run:
                options.stop.set()
            return event

        for found in _prefetch(_decoded(items, manifest, settings, options), options.stop, room):
            if found is not None:
                is_work = isinstance(found, Work)
                predicted.append((found, network.submit(operator.predict, found)) if is_work else found)
            # In order, and never more frames in hand than there are hands.
            while predicted and (_is_done(predicted[0]) or len(predicted) > operator.workers):
                advance()
            while encoded and (encoded[0].done() or len(encoded) > options.encoders + 1):
                yield finish()
        while predicted:
            advance()
        while encoded:
            yield finish()


def _decoded(
    items: Sequence[Item], manifest: Manifest, settings: Settings, options: Options
) -> Iterator[Work | Failed | Skipped | Note]:
    for clip, group in groupby(items, _sequence):
        members: Sequence[Item] = list(group)
        if clip is not None and options.fps:
            yield from _numbered(clip, members, manifest, settings, options)
            continue
        if clip is not None:
            taken = [item for item, is_wanted in _selected(members, options.selection) if is_wanted]
            yield from [] if taken else [_none_taken(clip, members, options.selection)]
            members = taken
        for item in members:
            stamp: tuple[int, int] | None = None
            try:
                stamp = _stamp(item)
                wanted = _Wanted(item, manifest, settings, options)
                read = _still if item.input.kind == "still" else _clip
                yield from read(item, stamp, wanted, options)
            except Exception as error:  # one damaged file must not end a night's work, whatever a decoder makes of it
                yield _unreadable(item, stamp, error)


def _sequence(item: Item) -> Path | None:
    """What the frames of a numbered sequence have in common."""
    return item.input.path.parent / item.input.sequence if item.input.sequence else None


def _unreadable(item: Item, stamp: tuple[int, int] | None, error: Exception) -> Failed:
    path = item.input.path
    if stamp is not None and (change := _change(item, stamp)):
        return Failed(item, change)  # that is why it could not be read
    if isinstance(error, Ldr2hdrError):
        return Failed(item, str(error))
    if isinstance(error, MemoryError):
        return Failed(item, f"{path} does not fit into memory.")
    if isinstance(error, OSError):
        return Failed(item, f"{path} cannot be read ({error.strerror or error}).")
    return Failed(item, f"{path} cannot be read: {_unforeseen(error)}", cause=error)


def _unforeseen(error: Exception) -> str:
    return f"unexpected {type(error).__name__} ({' '.join(str(error).split())[:300]}); please report it."


def _stamp(item: Item) -> tuple[int, int]:
    """What the source is before it is read. Only plain files: a pipe would be waited for, a device has no end."""
    path = item.input.path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Ldr2hdrError(f"{path} is no plain file but a pipe, a device or a directory; copy it into a file.")
        return fingerprint(path)
    except OSError as error:
        reason = "it is gone, or a link that leads nowhere" if error.errno == errno.ENOENT else error.strerror
        raise Ldr2hdrError(f"{path} cannot be opened ({reason}).") from None


def _change(item: Item, stamp: tuple[int, int]) -> str:
    """What happened to a source while it was read; empty where nothing did."""
    try:
        if fingerprint(item.input.path) == stamp:
            return ""
        happened = "changed"
    except OSError:
        happened = "disappeared"
    return f"{item.input.path} {happened} while it was being read; run the same command again when it is complete."


@dataclass(frozen=True)
class _Wanted:
    """What is there already, and need not be made again."""

    item: Item
    manifest: Manifest
    settings: Settings
    options: Options

    def skipped(self, index: int, basis: str = "") -> Iterator[Skipped | Note]:
        """A Skipped where the output of this frame is finished; a Note where it was, and has rotted."""
        output, source = self.item.output(index), self.item.input.path
        if self.options.overwrite or not self.manifest.recorded(output, source, self.settings, basis):
            return
        if not self.options.verify or self.manifest.verified(output, source):
            yield Skipped(self.item, output)
        else:
            yield Note(self.item, f"{output} or its source no longer has the checksum it had; it is made again.")


def _still(item: Item, stamp: tuple[int, int], wanted: _Wanted, options: Options) -> Iterator[Work | Skipped | Note]:
    for known in wanted.skipped(0):
        yield known
        if isinstance(known, Skipped):
            return
    plate, frame = read_still(item.input.path, max_pixels=options.max_pixels)
    _unchanged(item, stamp)
    for note in plate.notes:
        yield Note(item, f"{item.input.path}: {note}")
    yield Work(item, plate, frame, item.output(0), stamp)


def _clip(item: Item, stamp: tuple[int, int], wanted: _Wanted, options: Options) -> Iterator[Work | Skipped | Note]:
    path = item.input.path
    plate = probe(path, deinterlace=options.deinterlace, max_pixels=options.max_pixels)
    first, last = options.selection.indices()
    every = options.selection.every
    if (plate.frame_count or 0) > options.max_frames:
        raise _too_long(path, options.max_frames)
    for note in plate.notes:
        yield Note(item, f"{path}: {note}")
    # What stands finished at the front of the clip need not be decoded again. Where the clip ends is left to the
    # decoder, because containers promise more frames than there are, or fewer.
    while last is None or first <= last:
        known = list(wanted.skipped(first))
        yield from known
        if not any(isinstance(one, Skipped) for one in known):
            break
        first += every
    else:
        return

    def read(first: int, last: int | None) -> Iterator[Frame]:
        for frame in read_frames(
            path,
            first=first,
            last=last,
            every=every,
            deinterlace=options.deinterlace,
            max_pixels=options.max_pixels,
            start_number=item.start_number,
        ):
            _unchanged(item, stamp)
            if frame.index >= options.max_frames:
                raise _too_long(path, options.max_frames)
            yield frame

    phase = first % every
    checked = first  # its note, if any, has been given
    seen = -1  # the last number that the filter was given
    is_empty = first == options.selection.indices()[0]  # nothing was finished at the front
    for frame in read(first, last):
        is_empty = False
        known = list(wanted.skipped(frame.index)) if frame.index != checked else []
        yield from known
        if any(isinstance(one, Skipped) for one in known):
            continue
        number = (frame.index - phase) // every
        start = max(warm_up(number), seen + 1)
        if options.is_filtered and start < number:
            with suppress(Ldr2hdrError):  # a damaged frame is named when it is wanted itself
                for early in read(start * every + phase, frame.index - every):
                    place = (early.index - phase) // every
                    yield Work(item, plate, early, item.output(early.index), stamp, path, place, is_warm_up=True)
        seen = number
        yield Work(item, plate, frame, item.output(frame.index), stamp, path, number)
    if is_empty:
        count = f"; it has {plate.frame_count}, from number {item.start_number} on" if plate.frame_count else ""
        raise Ldr2hdrError(f"{path} has no frame{options.selection.asked()}{count}.")


def _selected(items: Sequence[Item], selection: Selection) -> list[tuple[Item, bool]]:
    """The pictures of a numbered sequence that `--every` takes, with whether `--frames` asks for them.

    Numbers are those of the files, whatever `--start-number` says.
    """
    first = selection.first if selection.first is not None else min(item.input.number or 0 for item in items)
    return [
        (item, number >= first)
        for item in items
        if ((number := item.input.number or 0) - first) % selection.every == 0
        and (selection.last is None or number <= selection.last)
    ]


def _none_taken(clip: Path, items: Sequence[Item], selection: Selection) -> Failed:
    numbers = [item.input.number or 0 for item in items]
    return Failed(
        items[0],
        f"{clip} has no picture{selection.asked()}; their numbers go from {min(numbers)} to {max(numbers)}.",
    )


def _numbered(
    clip: Path, items: Sequence[Item], manifest: Manifest, settings: Settings, options: Options
) -> Iterator[Work | Failed | Skipped | Note]:
    """A numbered sequence as a clip; a picture that cannot be read is passed over, and named."""
    every = options.selection.every
    taken = _selected(items, options.selection)
    if not any(is_wanted for _, is_wanted in taken):
        yield _none_taken(clip, items, options.selection)
    by_number = {(item.input.number or 0) // every: item for item, _ in taken}
    given: dict[int, tuple[int, int] | None] = {}  # the pictures as the filter gets them; None: passed over

    def read(number: int, is_warm_up: bool = False) -> Work:
        item = by_number[number]
        given[number] = None
        stamp = _stamp(item)
        plate, frame = read_still(item.input.path, max_pixels=options.max_pixels)
        _unchanged(item, stamp)
        given[number] = stamp
        plate = replace(plate, frame_rate=options.fps)
        return Work(item, plate, frame, item.output(0), stamp, clip, number, is_warm_up, basis(number))

    def basis(number: int) -> str:
        """Of the pictures before it that decide a frame: it is made again when one of them is mended or replaced."""
        earlier = (
            [early for early in range(warm_up(number), number) if early in by_number] if options.is_filtered else []
        )
        for early in earlier:
            if early not in given:
                with suppress(OSError):
                    given[early] = fingerprint(by_number[early].input.path)
        found = [(early, given.get(early)) for early in earlier]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""

    seen = -1  # the last number that the filter was given
    for item in (item for item, is_wanted in taken if is_wanted):
        number = (item.input.number or 0) // every
        stamp: tuple[int, int] | None = None
        try:
            stamp = _stamp(item)
            known = list(_Wanted(item, manifest, settings, options).skipped(0, basis(number)))
            yield from known
            if any(isinstance(one, Skipped) for one in known):
                continue
            for early in range(max(warm_up(number), seen + 1), number) if options.is_filtered else ():
                with suppress(Exception):  # it is named when it is wanted itself
                    if early in by_number:
                        yield read(early, is_warm_up=True)
            seen = number
            work = read(number)
            for note in work.plate.notes:
                yield Note(item, f"{item.input.path}: {note}")
            yield work
        except Exception as error:  # one damaged picture, as above
            given[number] = None
            yield _unreadable(item, stamp, error)


def _unchanged(item: Item, stamp: tuple[int, int]) -> None:
    if change := _change(item, stamp):
        raise Ldr2hdrError(change)


def _too_long(path: Path, most: int) -> Ldr2hdrError:
    return Ldr2hdrError(f"{path} has more frames than the {most} allowed; raise --max-frames if it is meant.")


class _PixelBudget:
    """How many pixels are in hand, so that memory is bounded whatever the pictures' size; one always has room."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._taken = pixels, 0
        self._left = threading.Condition()

    def enter(self, work: Work, timeout: float) -> bool:
        pixels = work.frame.pixels[..., 0].size
        with self._left:
            if not self._left.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels, timeout):
                return False
            self._taken += pixels
            return True

    def leave(self, work: Work) -> None:
        with self._left:
            self._taken -= work.frame.pixels[..., 0].size
            self._left.notify_all()


def _prefetch(source: Iterator[Any], stop: threading.Event, room: _PixelBudget, depth: int = 2) -> Iterator[Any]:
    """The same items, made by a thread that runs at most `depth` ahead; it ends soon after `stop`."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    end = object()
    gone = threading.Event()

    def put(thing: Any) -> bool:
        has_room = not isinstance(thing, Work)
        while not gone.is_set():
            has_room = has_room or room.enter(thing, 0.2)
            try:
                if has_room:
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
                # While nothing comes, the caller may have something to hand on, which makes room.
                yield None
                continue
            if thing is end:
                return
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        gone.set()
        thread.join()  # a decoder that is left running would be torn down in the middle when Python ends


def _is_done(first: "tuple[Work, Future[Any]] | Event") -> bool:
    return not isinstance(first, tuple) or first[1].done()


def _finished(operator: Operator, work: Work, future: "Future[Any]") -> np.ndarray | Failed | None:
    """The frame, or why there is none; nothing where it was only there for those after it."""
    try:
        hdr = operator.finish(work, future.result())
        return None if work.is_warm_up else hdr
    except Depends as error:
        message = f"{work.item.input.path}: frame {work.frame_number} cannot be made, because {error}; "
        return None if work.is_warm_up else _failed(work, message + "the same command makes both.")
    except Exception as error:  # one strange picture must not end a night's work
        operator.lose(work)
        return _unmade(work, error)


def _unmade(work: Work, error: Exception) -> Failed:
    path = work.item.input.path
    if isinstance(error, Ldr2hdrError):
        return _failed(work, str(error))
    if isinstance(error, MemoryError | RuntimeError):
        reason = str(error).splitlines()[0] if str(error) else "not enough memory"
        if _device_lost(error):
            message = f"{path}: the GPU is lost or in a fault ({reason}); --device cpu goes on without it."
            return _failed(work, message, ends_run=True)
        return _failed(work, f"{path}: the network could not run ({reason}); try --memory or --tile.")
    return _failed(work, f"{path}: the network failed: {_unforeseen(error)}", cause=error)


def _device_lost(error: Exception) -> bool:
    """CUDA's errors are sticky: after one, but for a lack of memory, nothing runs in this process any more."""
    text = str(error)
    return "out of memory" not in text and any(
        sign in text for sign in ("CUDA error", "CUDNN_STATUS", "cuDNN error", "CUBLAS_STATUS", "device-side assert")
    )


@dataclass(frozen=True)
class _Encoder:
    """Writes one frame, in a thread."""

    write: Callable[[Work, np.ndarray], int]
    manifest: Manifest
    threshold: float
    verify: bool

    def __call__(self, work: Work, hdr: np.ndarray) -> Event:
        try:
            peak = _peak(work, hdr)
            self.manifest.check_place()
            work.output.parent.mkdir(parents=True, exist_ok=True)
            clamped = self.write(work, hdr)
            if self.verify and work.output.suffix == ".exr":
                read_planes(work.output, max_values=4 * hdr[..., 0].size)
            entry = _entry(work, self.verify)
        except Ldr2hdrError as error:
            return _failed(work, str(error), ends_run=_hopeless(error))
        except OSError as error:
            message = f"{work.output} cannot be written ({error.strerror}): allow writing, or choose another -o."
            return _failed(work, message, ends_run=_hopeless(error))
        except Exception as error:
            return _failed(work, f"{work.output} cannot be written: {_unforeseen(error)}", cause=error)
        clipped = float(np.any(work.frame.pixels > self.threshold, axis=2).mean())
        megapixels = hdr.shape[0] * hdr.shape[1] / 1e6
        return Done(work.item, work.output, work.frame_number, megapixels, clipped, peak, clamped, entry)


def _peak(work: Work, hdr: np.ndarray) -> float:
    """The largest value. Raises Ldr2hdrError where any is negative, infinite or NaN, which both passes would return."""
    low, high = float(hdr.min()), float(hdr.max())
    if low >= 0 and high < math.inf:
        return high
    raise Ldr2hdrError(
        f"{work.item.input.path}: the result is not written, because its values, from {low:.4g} to {high:.4g}, are no "
        "light; try --precision fp32, or other --weights."
    )


def _hopeless(error: Exception) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(error, RunError) or (isinstance(cause, OSError) and cause.errno in _HOPELESS)


def _entry(work: Work, verify: bool) -> dict[str, Any]:
    """What the manifest keeps of a finished file."""
    size, modified = work.stamp
    entry = {
        "source": str(absolute(work.item.input.path)),
        "size": size,
        "modified": modified,
        "frame": work.frame_number,
        "seconds": work.frame.seconds,
        "bytes": work.output.stat().st_size,
        "sha256": sha256(work.output),
    }
    if work.basis:
        entry["basis"] = work.basis
    if verify:
        digest = source_sha256(work.item.input.path, size, modified)
        if not _change(work.item, work.stamp):  # or it would be that of other pixels
            entry["source_sha256"] = digest
    return entry


def _failed(work: Work, message: str, **why: Any) -> Failed:
    return Failed(work.item, message, work.frame_number, **why)


def _completed(event: Event) -> "Future[Event]":
    future: Future[Event] = Future()
    future.set_result(event)
    return future


def _recorded(future: "Future[Event]", manifest: Manifest, settings: Settings) -> Event:
    event = future.result()
    if isinstance(event, Done):
        try:
            manifest.add({"output": manifest.name(event.output), **event.entry}, settings)
        except RunError as error:
            return Failed(event.item, str(error), event.frame, ends_run=True)
    return event
