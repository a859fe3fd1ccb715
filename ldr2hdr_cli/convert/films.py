"""Clips as films, beside or instead of a file a frame: encoded in segments beside the network, joined at the end.

A segment is a file in a hidden directory, whose name tells source and settings, so that a run that was ended goes on
with the first segment that is not there; frames of the others are finished.
"""

import hashlib
import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from ldr2hdr_cli.convert.events import Done, Ended, Failed, FileEvent, Message, Note
from ldr2hdr_cli.convert.formats import display_light, in_source_primaries
from ldr2hdr_cli.convert.job import Item, Selection
from ldr2hdr_cli.convert.manifest import Manifest, Settings, absolute, fingerprint, sha256
from ldr2hdr_cli.convert.worklist import Work
from ldr2hdr_cli.media.hdr_video import SEGMENT, Picture, VideoSettings, join, picture, read_record, write_segment
from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.media.timecode import advance
from ldr2hdr_cli.options import ConvertOptions
from model.errors import Ldr2hdrError

_WAITING = 4  # pictures that an encoder may lie behind


@dataclass
class Films:
    """Every film of a run. `add` is called by the threads that write, all else by one thread, in the frames' order."""

    options: ConvertOptions
    settings: Settings
    manifest: Manifest
    selection: Selection
    _ready: dict[tuple[Path, int | None], tuple[Work, dict[str, Picture]]] = field(default_factory=dict)
    _open: dict[Path, "_Segment"] = field(default_factory=dict)  # by film
    _lost: set[tuple[Path, int]] = field(default_factory=set)  # segments with a frame that failed, by the clip's folder
    _broken: set[Path] = field(default_factory=set)  # clips with a frame that another run may make
    _gaps: set[Path] = field(default_factory=set)  # clips of which frames are damaged
    _given_up: set[Path] = field(default_factory=set)  # clips whose encoder has failed
    _finished: dict[Path, bool] = field(default_factory=dict)  # films, from an earlier run
    _lengths: dict[Path, int] = field(default_factory=dict)  # of segments from an earlier run, in frames

    def has(self, item: Item, number: int) -> bool:
        """Whether all films of a clip have this frame, by its number among those that are taken."""
        return all(self._is_finished(item, film) or self._is_encoded(item, film, number) for film in item.films)

    def add(self, work: Work, pixels: np.ndarray) -> None:
        """A frame, as in `model.rendering.Result`, for those films that lack it."""
        made = {}
        linear = in_source_primaries(pixels, work.info, self.options) if work.item.films else pixels
        for film, format in zip(work.item.films, self.options.films, strict=False):
            if self._is_finished(work.item, film) or self._segment(work.item, film, work.number).exists():
                continue  # its frame is made again for another format
            made[film] = picture(linear, self._how(format, work.info))
        if made:
            self._ready[work.item.folder, work.frame_number] = work, made

    def see(self, event: FileEvent | Message | Ended) -> Iterator[FileEvent | Message]:
        """The event, and what it means for the films."""
        if isinstance(event, Message) or not event.item.films:
            if not isinstance(event, Ended):
                yield event
            return
        folder = event.item.folder
        try:
            if isinstance(event, Done):
                if ready := self._ready.pop((folder, event.frame), None):
                    for film, one in ready[1].items():
                        self._put(ready[0], film, one)
            elif isinstance(event, Failed):
                if event.frame is None:
                    self._gaps.add(folder)
                else:
                    self._broken.add(folder)
                    index = event.frame - event.item.start_number
                    self._lost.add((folder, self.selection.number(index) // SEGMENT))
            elif isinstance(event, Ended):
                yield from self._finish(event)
        except (Ldr2hdrError, OSError) as error:
            self._broken.add(folder)
            self._given_up.add(folder)
            self._abandon(event.item)
            yield Failed(event.item, _sentence(folder, error))
        if not isinstance(event, Ended):
            yield event

    def close(self) -> None:
        """What is not complete is left out."""
        for segment in self._open.values():
            segment.abandon()
        self._open.clear()

    def _put(self, work: Work, film: str, one: Picture) -> None:
        item, path = work.item, self._segment(work.item, film, work.number)
        if item.folder in self._given_up:
            return
        now = self._open.get(item.folder / film)
        if now is None or now.path != path:
            self._close(item, film)
            format = self.options.films[item.films.index(film)]
            now = self._open[item.folder / film] = _Segment(path, self._how(format, work.info))
        now.put(one, work.frame.seconds)

    def _close(self, item: Item, film: str) -> None:
        segment = self._open.pop(item.folder / film, None)
        if segment is None:
            return
        if (item.folder, int(segment.path.stem)) in self._lost:
            segment.abandon()
        else:
            segment.close()

    def _abandon(self, item: Item) -> None:
        for film in item.films:
            if (segment := self._open.pop(item.folder / film, None)) is not None:
                segment.abandon()

    def _finish(self, event: Ended) -> Iterator[Note]:
        item, info, source = event.item, event.info, event.item.input.path
        first, last = self.selection.indices()
        for film, format in zip(item.films, self.options.films, strict=True):
            self._close(item, film)
            if self._is_finished(item, film):
                continue
            path = item.folder / film
            if item.folder in self._broken:
                yield Note(
                    item, f"{path} is not written, because frames of it failed; the same command goes on with it."
                )
                continue
            segments = sorted(self._segment(item, film, 0).parent.glob("*" + path.suffix))
            if not segments:  # its source has changed on the way
                continue
            timecode = None
            if info.timecode and info.frame_rate:
                with suppress(ValueError):  # free text under that name
                    timecode = advance(info.timecode, first, info.frame_rate)
            is_part = first > 0 or last is not None
            how = self._how(format, info)
            for note in join(path, segments, how, source, is_trimmed=is_part, timecode=timecode):
                yield Note(item, f"{source}: {note}")
            size, modified = fingerprint(source)
            entry = {"output": self.manifest.name(path), "source": str(absolute(source)), "size": size}
            entry |= {"modified": modified, "frame": None, "bytes": path.stat().st_size, "sha256": sha256(path)}
            self.manifest.add(entry, self.settings)
            for folder in item.folder.glob(f".{film}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            gaps = ", without the frames that cannot be decoded" if item.folder in self._gaps else ""
            yield Note(item, f"{path} is written{gaps}.")

    def _is_finished(self, item: Item, film: str) -> bool:
        path = item.folder / film
        if path not in self._finished:  # asked for every frame, and --verify reads the whole film
            self._finished[path] = not self.options.overwrite and self.manifest.finished(
                path, item.input.path, self.settings, self.options.verify
            )
        return self._finished[path]

    def _is_encoded(self, item: Item, film: str, number: int) -> bool:
        path = self._segment(item, film, number)
        if not path.exists():
            return False
        if path not in self._lengths:
            self._lengths[path] = len(read_record(path).seconds)
        return number % SEGMENT < self._lengths[path]  # else it is beyond the clip's end

    def _segment(self, item: Item, film: str, number: int) -> Path:
        """OUT/clip/.clip.hdr10.mp4-3f0c…/000002.mp4 holds the frames from number 192 on."""
        stamp = fingerprint(item.input.path)
        key = hashlib.sha256(f"{self.settings.digest()} {stamp}".encode()).hexdigest()[:16]
        return item.folder / f".{film}-{key}" / f"{number // SEGMENT:06d}{Path(film).suffix}"

    def _how(self, format: str, info: SourceInfo) -> VideoSettings:
        options = self.options
        return VideoSettings(
            format,  # type: ignore[arg-type]
            options.codec,
            options.crf,
            options.preset,
            display_light(info, options),
            info.chromaticities,
            info.frame_rate or Fraction(25),
            Fraction(info.pixel_aspect).limit_denominator(1000),
        )


def _sentence(folder: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        why = error.strerror or error
        return f"{folder} cannot take a film ({why}): make space, allow writing, or choose another -o."
    return str(error)


class _Abandoned(Exception):
    """Ends an encoder whose segment is not wanted any more."""


class _Segment:
    """A segment and the thread that encodes it."""

    def __init__(self, path: Path, settings: VideoSettings) -> None:
        self.path, self._settings = path, settings
        self._waiting: queue.Queue[tuple[Picture, float | None] | type[_Abandoned] | None] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="film", daemon=True)
        self._thread.start()

    def put(self, one: Picture, seconds: float | None) -> None:
        """Waits where the encoder is behind. Raises what it has failed of."""
        self._give((one, seconds))

    def close(self) -> None:
        """Returns when the file is there. Raises what the encoder has failed of."""
        self._give(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Returns when nothing is left of it."""
        if self._thread.is_alive():
            try:
                self._give(_Abandoned)
            except Exception:  # it has failed by itself
                return
            self._thread.join()

    def _give(self, what: tuple[Picture, float | None] | type[_Abandoned] | None) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._waiting.put(what, timeout=0.2)
            except queue.Full:
                continue

    def _pictures(self) -> Iterator[tuple[Picture, float | None]]:
        while (what := self._waiting.get()) is not None:
            if isinstance(what, type):
                raise what
            yield what

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_segment(self.path, self._pictures(), self._settings)
        except _Abandoned:
            pass
        except Exception as error:  # raised by whoever waits for the segment
            self._error = error
