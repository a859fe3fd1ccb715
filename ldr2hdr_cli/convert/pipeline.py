"""decode → reconstruct → encode, overlapped, in bounded memory; one failure stays one failure.

A thread decodes ahead into a short queue; a thread for each device runs the network; one puts eq. 1 and the frames of a
clip together, in order; as many as there are cores encode, since neither FFmpeg, torch nor OpenEXR holds the
interpreter lock while it works. The calling thread hands frames on, and waits.
"""

from __future__ import annotations

import errno
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from ldr2hdr_cli.convert.chunks import Chunk, ChunkEnded
from ldr2hdr_cli.convert.events import Done, Ended, Failed, FileEvent, Message, unforeseen
from ldr2hdr_cli.convert.manifest import Manifest, RunError, Settings, absolute, sha256, source_sha256
from ldr2hdr_cli.convert.temporal import Depends
from ldr2hdr_cli.convert.worklist import Options, Work, remaining, source_change
from ldr2hdr_cli.media.exr import read_planes
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from model.rendering import Rendered, Result

# After these no other file can be written either: full, over quota, read-only, unplugged.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ESTALE}


class Operator(Protocol):
    """The network, or a classical operator.

    predict: what takes long, by itself; called from as many threads at once as `workers` says. finish: the frame as it
    is written, on its way to the host, from what `predict` returned; called with the frames in their order, by one
    thread. lose: called in its place, or after it, for a frame that failed; `finish` raises temporal.Depends for those
    that cannot be made without it. ahead: frames that are worked on between the two.
    """

    workers: int
    ahead: int

    def predict(self, work: Work) -> Any: ...

    def finish(self, work: Work, predicted: Any) -> Rendered: ...

    def lose(self, work: Work) -> None: ...

    def close(self) -> None: ...


def run(
    chunks: Iterable[Chunk | FileEvent],
    operator: Operator,
    write: Callable[[Work, Result], int],
    manifest: Manifest,
    settings: Settings,
    options: Options,
    messages: queue.SimpleQueue[str] | None = None,
) -> Iterator[FileEvent | Message | Ended | ChunkEnded]:
    """Convert everything, and tell what became of it, in the order of the chunks; after each comes its `ChunkEnded`.

    write: encodes one frame and returns how many values were clamped. messages: what any thread has to say of the whole
    run; passed on at once, whatever is at work. Ends early, with what is in hand finished, when `options.stop` is set,
    or after a failure that no other file can escape (`Failed.ends_run`).
    """
    encode = _Encoder(write, manifest, options.verify)
    budget = _PixelBudget(options.pixels)
    messages = messages or queue.SimpleQueue()
    in_hand = operator.workers + operator.ahead + options.encoders + 1
    with (
        ThreadPoolExecutor(operator.workers, "network") as network,
        ThreadPoolExecutor(1, "finish") as in_order,
        ThreadPoolExecutor(options.encoders, "encode") as encoders,
    ):
        pending: deque[Future[FileEvent | None]] = deque()
        predicting: deque[Future[Any]] = deque()

        def begin(work: Work) -> None:
            predicting.append(network.submit(_predict, operator, work))
            finished = in_order.submit(_finished, operator, work, predicting[-1])
            pending.append(encoders.submit(encode, work, finished))
            pending[-1].add_done_callback(lambda _future: budget.leave(work))

        def settle() -> Iterator[FileEvent]:
            event = _recorded(pending.popleft(), manifest, settings)
            if isinstance(event, Failed) and event.ends_run:
                options.stop.set()
            if event is not None:
                yield event

        for found in _prefetch(remaining(chunks, manifest, settings, options), options.stop, budget):
            if isinstance(found, Work):
                begin(found)
            elif found is not None:
                pending.append(_completed(found))
            yield from _said(messages)
            while len(predicting) > operator.workers:  # so that little is left to be done when `stop` is set
                yield from _said(messages, until=predicting.popleft())
            while pending and (pending[0].done() or len(pending) > in_hand):
                yield from _said(messages, until=pending[0])
                yield from settle()
        while pending:
            yield from _said(messages, until=pending[0])
            yield from settle()
        yield from _said(messages)


class _PixelBudget:
    """Bounds the pixels in hand, and so the memory, whatever the size of the pictures; a single one always fits."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._in_hand = pixels, 0
        self._left = threading.Condition()

    def enter(self, work: Work, timeout: float) -> bool:
        pixels = work.frame.size
        with self._left:
            if not self._left.wait_for(lambda: not self._in_hand or self._in_hand + pixels <= self._pixels, timeout):
                return False
            self._in_hand += pixels
            return True

    def leave(self, work: Work) -> None:
        with self._left:
            self._in_hand -= work.frame.size
            self._left.notify_all()


def _prefetch(source: Iterator[Any], stop: threading.Event, budget: _PixelBudget, depth: int = 2) -> Iterator[Any]:
    """The items of `source`, made by a thread that runs at most `depth` ahead; None while none is ready.

    Ends soon after `stop` is set, and sets it where the reader goes away.
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
            for thing in _timed(source):
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
    except BaseException:
        stop.set()  # the thread may be waiting for chunks of other processes
        raise
    finally:
        gone.set()
        thread.join()  # a decoder that is left running would be torn down in the middle when Python ends


def _timed(source: Iterator[Any]) -> Iterator[Any]:
    """The same; each frame knows how long it took to read."""
    seconds, began = 0.0, perf_counter()
    for thing in source:
        seconds += perf_counter() - began
        if isinstance(thing, Work):  # notes on what was found while it was read come first
            thing.spent.read, seconds = seconds, 0.0
        yield thing
        began = perf_counter()


def _said(messages: queue.SimpleQueue[str], until: Future[Any] | None = None) -> Iterator[Message]:
    """The messages there are; with `until`, also those that come while that is still at work."""
    while True:
        at_work = until if until is not None and not until.done() else None
        while not messages.empty():
            yield Message(messages.get())
        if at_work is None:
            return
        wait([at_work], timeout=0.2)


def _predict(operator: Operator, work: Work) -> Any:
    began = perf_counter()
    predicted = operator.predict(work)
    work.spent.reconstruct += perf_counter() - began
    return predicted


def _finished(operator: Operator, work: Work, predicted: Future[Any]) -> Rendered | Failed | None:
    """The frame, or why there is none; nothing where it was only there for those after it."""
    try:
        given = predicted.result()
        began = perf_counter()
        rendered = operator.finish(work, given)
        work.spent.reconstruct += perf_counter() - began
        return None if work.is_warm_up else rendered
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

    write: Callable[[Work, Result], int]
    manifest: Manifest
    verify: bool

    def __call__(self, work: Work, finished: Future[Rendered | Failed | None]) -> FileEvent | None:
        rendered = finished.result()
        if rendered is None or isinstance(rendered, Failed):
            return rendered
        began = perf_counter()
        try:
            result = rendered.fetch()
        except Exception as error:  # what a device has failed in may show no earlier
            return _unmade(work, error)
        fetched = perf_counter()
        work.spent.reconstruct += fetched - began
        try:
            _check(work, result)
            self.manifest.check_place()
            work.output.parent.mkdir(parents=True, exist_ok=True)
            clamped = self.write(work, result)
            if self.verify and work.output.suffix == ".exr":
                read_planes(work.output, max_values=5 * work.frame.size)
            entry: dict[str, Any] = {}
            if work.item.suffix:  # a film's is that of the whole clip
                entry = {**_entry(work, self.verify), "clipped": round(result.clipped, 6)}
        except Ldr2hdrError as error:
            return _failed(work, str(error), ends_run=_hopeless(error))
        except OSError as error:
            message = f"{work.output} cannot be written ({error.strerror}): allow writing, or choose another -o."
            return _failed(work, message, ends_run=_hopeless(error))
        except Exception as error:
            return _failed(work, f"{work.output} cannot be written: {unforeseen(error)}", cause=error)
        work.spent.write = perf_counter() - fetched
        return Done(
            work.item,
            work.output,
            work.frame_number,
            work.frame.size / 1e6,
            result.clipped,
            result.peak,
            clamped,
            entry,
            work.spent,
        )


def _check(work: Work, result: Result) -> None:
    """Raises Ldr2hdrError where any value is negative, infinite or NaN, which both passes would return."""
    if not (result.lowest >= 0 and result.peak < math.inf):
        raise Ldr2hdrError(
            f"{work.item.input.path}: the result is not written, because its values, from {result.lowest:.4g} to "
            f"{result.peak:.4g}, are no light; try --precision fp32, or other --weights."
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
        "index": work.frame.index,
        "seconds": work.frame.seconds,
        "bytes": work.output.stat().st_size,
        "sha256": sha256(work.output),
    }
    more = [work.item.beside(work.output, suffix) for suffix in work.item.more]
    if more:
        entry["more"] = {path.name: [path.stat().st_size, sha256(path)] for path in more}
    if work.basis:
        entry["basis"] = work.basis
    if verify:
        digest = source_sha256(work.item.input.path, size, modified)
        if not source_change(work.item, work.stamp):  # or it would be that of other pixels
            entry["source_sha256"] = digest
    return entry


def _failed(work: Work, message: str, **why: Any) -> Failed:
    return Failed(work.item, message, work.frame_number, **why)


def _completed(event: FileEvent) -> Future[FileEvent | None]:
    future: Future[FileEvent | None] = Future()
    future.set_result(event)
    return future


def _recorded(future: Future[FileEvent | None], manifest: Manifest, settings: Settings) -> FileEvent | None:
    event = future.result()
    if isinstance(event, Done) and event.entry:
        try:
            manifest.add({"output": manifest.name(event.output), **event.entry}, settings)
        except RunError as error:
            return Failed(event.item, str(error), event.frame, ends_run=True)
    elif isinstance(event, Failed) and not event.ends_run:
        with suppress(Ldr2hdrError):  # whatever keeps it from being written, the failure itself is told
            item = event.item
            output = item.output(0 if event.frame is None else event.frame - item.start_number)
            manifest.add_failure(output, item.input.path, event.frame, event.message)
    return event
