"""One process of a farm: it holds a converter, is given chunks, and tells what becomes of them.

It knows nothing of Ray, which makes an actor of it.
"""

import pickle
import queue
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ldr2hdr_cli.convert.chunks import Chunk, ChunkEnded
from ldr2hdr_cli.convert.events import Failed, FileEvent, Message, unforeseen
from ldr2hdr_cli.convert.job import Item, Selection, Settings
from ldr2hdr_cli.options import ConvertOptions
from model import __version__
from model.errors import Ldr2hdrError

_LAG = 0.1  # seconds that events may wait for others
_MOST = 256  # events that are sent together
_SEEN_WITHIN = 60.0  # seconds until another machine must see a file that was just made; NFS keeps what it knows


@dataclass(frozen=True)
class Order:
    """What every worker of a job is told. Paths are absolute.

    sizes: of some of the job's sources; whoever does not see them does not see the others. clip: one, if there is any;
    it decides the settings. weights: sha256 of those that the driver has; empty without a network. threads: of the
    processor, for the network; 0: as many as there are cores.
    """

    sizes: dict[Item, int]
    clip: Item | None
    selection: Selection
    out: Path
    options: ConvertOptions
    weights: str
    threads: int


@dataclass(frozen=True)
class Hello:
    """A worker is there. settings: that decide its bytes; None where it cannot work, which `refusal` says why."""

    host: str
    settings: Settings | None = None
    refusal: str = ""
    node: str = ""  # its name in the cluster


@dataclass(frozen=True)
class Wants:
    """The worker has read all that it was given, and takes another chunk."""


@dataclass(frozen=True)
class Ended:
    """Everything of a chunk is told, and recorded where other machines see it."""

    key: str


@dataclass(frozen=True)
class Refused:
    """The worker cannot work after all; why."""

    why: str


@dataclass(frozen=True)
class Broke:
    """The worker cannot go on; why."""

    why: str


Report = FileEvent | Message | Wants | Ended | Refused | Broke


class Worker:
    """`hello` comes first, then `run`, to which the others may be called from another thread."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._stop = threading.Event()
        self._given: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self._reports: queue.Queue[Report | None] = queue.Queue(4 * _MOST)

    def hello(self, version: str, order: bytes) -> Hello:
        """Loads the network. order: an Order, pickled, which another version may not be able to read."""
        try:
            if version != __version__:
                raise Ldr2hdrError(f"it has ldr2hdr {__version__}, and not {version}: install that there.")
            return Hello(self._host, self._open(pickle.loads(order)))
        except Ldr2hdrError as error:
            return Hello(self._host, refusal=str(error))
        except Exception as error:
            return Hello(self._host, refusal=unforeseen(error))

    def give(self, chunk: Chunk) -> None:
        self._given.put(chunk)

    def stop(self) -> None:
        """What is in hand is finished and told; then `run` ends."""
        self._stop.set()

    def run(self, sign: Path) -> Iterator[list[Report]]:
        """Converts what `give` brings. sign: a file that the driver has just made in the output directory."""
        until = time.monotonic() + _SEEN_WITHIN
        while not sign.exists():
            if time.monotonic() > until or self._stop.wait(1):
                yield [Refused(f"{self._converter.out} is another directory there: mount the same one.")]
                return
        threading.Thread(target=self._convert, name="convert", daemon=True).start()
        is_over = False
        while not is_over:
            batch = self._batch()
            is_over = batch[-1] is None
            if reports := [one for one in batch if one is not None]:
                yield reports

    def _open(self, order: Order) -> Settings:
        from ldr2hdr_cli.convert.run import Converter
        from ldr2hdr_cli.memory import keep_freed_memory

        for item, size in order.sizes.items():
            _check_sight(item.input.path, size)
        if not order.out.is_dir():
            raise Ldr2hdrError(f"{order.out} is not there: mount it under the same path.")
        if order.threads:
            import cv2
            import torch

            torch.set_num_threads(order.threads)
            cv2.setNumThreads(order.threads)
        keep_freed_memory()
        items = list(order.sizes) if order.clip is None else [order.clip]
        self._converter = Converter(items, order.selection, order.out, order.options, self._stop)
        settings = self._converter.settings
        if settings.weights != order.weights:
            raise Ldr2hdrError("it has other weights, by their sha256: install the same ldr2hdr, or give --weights.")
        return settings

    def _convert(self) -> None:
        converter = self._converter
        try:
            for event in converter.events(self._chunks()):
                if isinstance(event, ChunkEnded):
                    converter.manifest.flush()
                    self._reports.put(Ended(event.chunk.key))
                else:
                    self._reports.put(_portable(event, self._host))
            converter.close()
        except Ldr2hdrError as error:
            self._reports.put(Broke(str(error)))
        except Exception as error:
            self._reports.put(Broke(unforeseen(error)))
        finally:
            self._reports.put(None)

    def _chunks(self) -> Iterator[Chunk]:
        while not self._stop.is_set():
            self._reports.put(Wants())
            while not self._stop.is_set():
                with suppress(queue.Empty):
                    chunk = self._given.get(timeout=0.2)
                    self._converter.manifest.forget()  # another worker may have died of it, and recorded a part
                    yield chunk
                    break

    def _batch(self) -> list[Report | None]:
        """What there is to tell, a tenth of a second's; what the driver waits for, at once."""
        batch, until = [self._reports.get()], time.monotonic() + _LAG
        while isinstance(batch[-1], FileEvent) and len(batch) < _MOST:
            try:
                batch.append(self._reports.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return batch


def _check_sight(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        reason = error.strerror or str(error)
        raise Ldr2hdrError(f"{path} cannot be seen ({reason}): mount it under the same path.") from None
    if found != size:
        raise Ldr2hdrError(f"{path} is another file there, of {found} bytes and not {size}: mount the same directory.")


def _portable(event: FileEvent | Message, host: str) -> FileEvent | Message:
    """As another process can read it: not every exception can be pickled, and none takes its traceback along."""
    if isinstance(event, Message):
        return Message(f"{host}: {event.text}")
    if isinstance(event, Failed) and event.cause is not None:
        text = "".join(traceback.format_exception(event.cause))
        return replace(event, cause=RuntimeError(f"on {host}: {text}"))
    return event
