"""decode → reconstruct → encode, overlapped, in bounded memory; one failure stays one failure.

A thread decodes ahead into a short queue; a thread for each device runs the network; the calling thread puts eq. 1 and
the frames of a clip together, in order; a few threads encode, since neither FFmpeg, torch nor OpenEXR holds the
interpreter lock while it works.
"""

import errno
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ldr2hdr_cli.convert.events import Done, Failed, FileEvent, unforeseen
from ldr2hdr_cli.convert.job import Item, Manifest, RunError, Settings, absolute, sha256, source_sha256
from ldr2hdr_cli.convert.temporal import Depends
from ldr2hdr_cli.convert.worklist import Options, Work, remaining, source_change
from ldr2hdr_cli.media.exr import read_planes
from model.errors import Ldr2hdrError

# After these no other file can be written either: full, over quota, read-only, unplugged.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ESTALE}


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


def run(
    items: Sequence[Item],
    operator: Operator,
    write: Callable[[Work, np.ndarray], int],
    manifest: Manifest,
    settings: Settings,
    options: Options,
    threshold: float,
) -> Iterator[FileEvent]:
    """Convert everything, and tell what became of it, in the order of the inputs.

    write: encodes one frame and returns how many values it clamped. threshold: α, above which a pixel counts as
    clipped. Ends early, with what is in hand finished, when `options.stop` is set, or after a failure that no other
    file can escape (`Failed.ends_run`).
    """
    encode = _Encoder(write, manifest, threshold, options.verify)
    budget = _PixelBudget(options.pixels)
    with (
        ThreadPoolExecutor(operator.workers, "network") as network,
        ThreadPoolExecutor(options.encoders, "encode") as encoders,
    ):
        predicted: deque[tuple[Work, Future[Any]] | FileEvent] = deque()
        encoded: deque[Future[FileEvent]] = deque()

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
                encoded[-1].add_done_callback(lambda _future: budget.leave(work))
            else:
                budget.leave(work)
                encoded.extend([_completed(result)] if result is not None else [])

        def finish() -> FileEvent:
            event = _recorded(encoded.popleft(), manifest, settings)
            if isinstance(event, Failed) and event.ends_run:
                options.stop.set()
            return event

        for found in _prefetch(remaining(items, manifest, settings, options), options.stop, budget):
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


class _PixelBudget:
    """Bounds the pixels in hand, and so the memory, whatever the size of the pictures; a single one always fits."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._in_hand = pixels, 0
        self._left = threading.Condition()

    def enter(self, work: Work, timeout: float) -> bool:
        pixels = work.frame.pixels[..., 0].size
        with self._left:
            if not self._left.wait_for(lambda: not self._in_hand or self._in_hand + pixels <= self._pixels, timeout):
                return False
            self._in_hand += pixels
            return True

    def leave(self, work: Work) -> None:
        with self._left:
            self._in_hand -= work.frame.pixels[..., 0].size
            self._left.notify_all()


def _prefetch(source: Iterator[Any], stop: threading.Event, budget: _PixelBudget, depth: int = 2) -> Iterator[Any]:
    """The items of `source`, made by a thread that runs at most `depth` ahead; None while none is ready.

    Ends soon after `stop` is set.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    end = object()
    gone = threading.Event()

    def put(thing: Any) -> bool:
        has_room = not isinstance(thing, Work)
        while not gone.is_set():
            has_room = has_room or budget.enter(thing, 0.2)
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


def _is_done(first: "tuple[Work, Future[Any]] | FileEvent") -> bool:
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
    return _failed(work, f"{path}: the network failed: {unforeseen(error)}", cause=error)


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

    def __call__(self, work: Work, hdr: np.ndarray) -> FileEvent:
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
            return _failed(work, f"{work.output} cannot be written: {unforeseen(error)}", cause=error)
        is_clipped = np.any(work.frame.pixels > self.threshold, axis=2)
        clipped = 0.0 if work.info.is_hdr else float(is_clipped.mean())
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
        if not source_change(work.item, work.stamp):  # or it would be that of other pixels
            entry["source_sha256"] = digest
    return entry


def _failed(work: Work, message: str, **why: Any) -> Failed:
    return Failed(work.item, message, work.frame_number, **why)


def _completed(event: FileEvent) -> "Future[FileEvent]":
    future: Future[FileEvent] = Future()
    future.set_result(event)
    return future


def _recorded(future: "Future[FileEvent]", manifest: Manifest, settings: Settings) -> FileEvent:
    event = future.result()
    if isinstance(event, Done):
        try:
            manifest.add({"output": manifest.name(event.output), **event.entry}, settings)
        except RunError as error:
            return Failed(event.item, str(error), event.frame, ends_run=True)
    return event
