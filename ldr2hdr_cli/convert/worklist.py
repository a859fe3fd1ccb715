"""Which frames are still to do, and reading them: inputs → `Work`, with what is finished, failed or assumed in between.

Photographs and numbered sequences are pictures in files of their own, a video is many in one; `_Walk` is what they
share: a frame that is finished is passed over, and the frames that the temporal filter needs before one come first.
"""

import errno
import hashlib
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ldr2hdr_cli.convert.chunks import Ahead, Chunk, ChunkEnded, Stretch, number_of, sequence_of
from ldr2hdr_cli.convert.events import Ended, Failed, FileEvent, Note, Skipped, Spent, unforeseen
from ldr2hdr_cli.convert.job import Item, Selection
from ldr2hdr_cli.convert.manifest import Manifest, Settings, fingerprint
from ldr2hdr_cli.convert.temporal import warm_up
from ldr2hdr_cli.media.limits import MAX_PIXELS
from ldr2hdr_cli.media.panorama import told_apart
from ldr2hdr_cli.media.sources import Frame, SourceInfo, probe, read_frames, read_still, refuse_hdr
from model.errors import Ldr2hdrError

Stamp = tuple[int, int]
"""Size and time of change of a source, see `job.fingerprint`."""


@dataclass(frozen=True)
class Work:
    """One frame on its way."""

    item: Item
    info: SourceInfo
    frame: Frame
    output: Path
    stamp: Stamp  # of the source, before it was read
    clip: Path | None = None  # that it is a frame of; None for a photograph
    number: int = 0  # of the frame among those of the clip that are taken, from its beginning
    is_warm_up: bool = False  # only there for the frames after it, and not written
    basis: str = ""  # digest of the other files that decide it
    spent: Spent = field(default_factory=Spent)  # added to on its way

    @property
    def frame_number(self) -> int | None:
        """As the outputs count; None for a photograph."""
        return self.item.frame(self.frame.index)


@dataclass
class Options:
    """How a run behaves, apart from what decides the bytes."""

    selection: Selection = field(default_factory=Selection)
    deinterlace: bool = False
    overwrite: bool = False
    verify: bool = False
    hwaccel: str = "none"
    encoders: int = 2
    max_pixels: int = MAX_PIXELS
    max_frames: int = 2**20
    fps: Fraction | None = None  # numbered sequences are clips
    panorama: Literal["auto", "on", "off"] = "auto"
    from_hdr: bool = False
    gain_map: Literal["use", "ignore", "only"] = "use"
    is_filtered: bool = False  # the frames of a clip depend on those before
    assumptions: Callable[[SourceInfo], Sequence[str]] = lambda _info: ()  # sentences on the colour of a source
    pixels: int = 48 * 2**20  # in hand at a time, 24 bytes each
    is_filmed: Callable[[Item, int], bool] = lambda _item, _number: False  # a clip's frame, by number, in all its films
    stop: threading.Event = field(default_factory=threading.Event)


Found = Work | FileEvent | Ended | ChunkEnded


def remaining(
    chunks: Iterable[Chunk | FileEvent], manifest: Manifest, settings: Settings, options: Options
) -> Iterator[Found]:
    """Every frame of these chunks in their order: read, if it is not finished, or why it is not read.

    What stands among the chunks is passed on. After each there is a `ChunkEnded`.
    """
    record = _Record(manifest, settings, options)
    ahead = Ahead(chunks)
    for chunk in ahead:
        if not isinstance(chunk, Chunk):
            yield chunk
        elif chunk.clip is None:
            for item in chunk.items:
                yield from _photograph(item, record)
            yield ChunkEnded(chunk)
        elif chunk.items[0].input.kind == "still":
            yield from _sequence(Stretch(chunk, ahead.after), record)
        else:
            yield from _video(Stretch(chunk, ahead.after), record)


def length(item: Item, options: Options) -> int | None:
    """How many frames a video says it has, more or less; None where that is unknown, too many, or it cannot be read."""
    try:
        info = _probed(item.input.path, _stamp(item), options.deinterlace, options.max_pixels)
    except Exception:  # named when it is converted
        return None
    count = info.frame_count or round((info.seconds or 0) * (info.frame_rate or 0))
    return count if 0 < count <= options.max_frames else None


@lru_cache(maxsize=8)
def _probed(path: Path, _stamp: Stamp, deinterlace: bool, max_pixels: int) -> SourceInfo:
    """Once for all the chunks of a clip."""
    return probe(path, deinterlace=deinterlace, max_pixels=max_pixels)


@dataclass(frozen=True)
class _Record:
    """What is finished already, and need not be made again."""

    manifest: Manifest
    settings: Settings
    options: Options
    said: set[tuple[Path, str]] = field(default_factory=set)  # once for a sequence or a folder
    # Where clips end, or cannot be read any further: the start of that chunk. A container may promise more.
    ends: dict[tuple[Path, Stamp | None], int] = field(default_factory=dict)

    def notes(self, item: Item, info: SourceInfo) -> Iterator[Note]:
        """What a source leaves open, and what is done then: once for all pictures of a sequence."""
        sequence = sequence_of(item)
        for note in info.notes:
            yield Note(item, f"{item.input.path}: {note}")
        for note in self.options.assumptions(info):
            if sequence is None or (sequence, note) not in self.said:
                yield Note(item, f"{sequence or item.input.path}: {note}")
            if sequence is not None:
                self.said.add((sequence, note))

    def of(self, item: Item, index: int = 0, basis: str = "") -> Skipped | Note | None:
        """Skipped where the output of this frame is finished; a Note where it was, and has rotted."""
        output, source, frame = item.output(index), item.input.path, item.frame(index)
        if self.options.overwrite:
            return None
        if item.films and not self.options.is_filmed(item, self.options.selection.number(index)):
            return None
        if not item.suffix:
            return Skipped(item, output)
        if not self.manifest.recorded(output, source, self.settings, basis, frame):
            return self._why(item, output, frame)
        if not self.options.verify or self.manifest.verified(output, source, frame):
            return Skipped(item, output)
        return Note(item, f"{output} or its source no longer has the checksum it had; it is made again.")

    def _why(self, item: Item, output: Path, frame: int | None) -> Note | None:
        """Once for all files that have the same reason: they are made again, since other settings make other bytes."""
        why = self.manifest.other_settings(output, self.settings, frame)
        if not why or (output.parent, why) in self.said:
            return None
        self.said.add((output.parent, why))
        return Note(item, f"{output} was made with {why}: this and others like it are made again.")

    def has_films(self, item: Item) -> bool:
        """Whether all films of a clip are finished."""
        return not self.options.overwrite and all(
            self.manifest.finished(item.folder / film, item.input.path, self.settings, self.options.verify)
            for film in item.films
        )


@dataclass
class _Walk:
    """From frame to frame of one input.

    earlier: reads the frames with these numbers, the second exclusive, for the temporal filter alone; None where there
    is no filter. One that is damaged is left out: it is named when it is wanted itself.
    """

    record: _Record
    earlier: Callable[[int, int], Iterator[Work]] | None
    seen: int = -1  # the last number that the filter was given

    def step(self, item: Item, index: int, number: int, basis: str = "") -> Generator[Found, None, bool]:
        """Whether the frame is to be made; before that, what the filter needs to make it."""
        known = self.record.of(item, index, basis)
        if known is not None:
            yield known
        if isinstance(known, Skipped):
            return False
        start = max(warm_up(number), self.seen + 1)
        if self.earlier is not None and start < number:
            yield from self.earlier(start, number)
        self.seen = number
        return True


def _photograph(item: Item, record: _Record) -> Iterator[Found]:
    """One that cannot be read is named, and the others are converted."""
    options = record.options
    stamp: Stamp | None = None
    try:
        stamp = _stamp(item)
        if (known := record.of(item)) is not None:
            yield known
        if not isinstance(known, Skipped):
            info, frame = _picture(item, stamp, options)
            info = told_apart(info, frame.pixels, options.panorama)
            yield from record.notes(item, info)
            yield Work(item, info, frame, item.output(0), stamp)
    except Exception as error:  # one damaged file must not end a night's work, whatever a decoder makes of it
        yield _unreadable(item, stamp, error)


def _picture(item: Item, stamp: Stamp, options: Options) -> tuple[SourceInfo, Frame]:
    found = read_still(item.input.path, options.max_pixels, from_hdr=options.from_hdr, gain_map=options.gain_map)
    _unchanged(item, stamp)
    return found


def _sequence(stretch: Stretch, record: _Record) -> Iterator[Found]:
    """The pictures of a numbered sequence as a clip; one that cannot be read is left out."""
    chunk, options = stretch.chunk, record.options
    assert chunk is not None
    by_number: dict[int, Item] = {}
    given: dict[int, Stamp | None] = {}  # the pictures as the filter gets them; None: not there

    def read(item: Item, number: int, is_warm_up: bool = False) -> Work:
        stamp = given[number] = _stamp(item)
        info, frame = _picture(item, stamp, options)
        info = replace(info, frame_rate=options.fps, panorama=options.panorama == "on")
        return Work(item, info, frame, item.output(0), stamp, chunk.clip, number, is_warm_up, basis(number))

    def earlier(start: int, end: int) -> Iterator[Work]:
        for number in range(start, end):
            with suppress(Exception):
                if number in by_number:
                    yield read(by_number[number], number, is_warm_up=True)

    def basis(number: int) -> str:
        """Of the pictures before it that decide a frame: it is made again when one of them is mended or replaced."""
        before = [one for one in range(warm_up(number), number) if one in by_number] if options.is_filtered else []
        for one in before:
            if one not in given:
                with suppress(OSError):
                    given[one] = fingerprint(by_number[one].input.path)
        found = [(one, given.get(one)) for one in before]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""

    def made(item: Item) -> Iterator[Found]:
        number = number_of(item, options.selection)
        stamp: Stamp | None = None
        try:
            stamp = _stamp(item)
            if (yield from walk.step(item, 0, number, basis(number))):
                work = read(item, number)
                yield from record.notes(item, work.info)
                yield work
        except Exception as error:  # as above
            yield _unreadable(item, stamp, error)

    walk = _Walk(record, earlier if options.is_filtered else None)
    while stretch.chunk is not None:
        by_number |= {number_of(item, options.selection): item for item in stretch.chunk.sequence}
        for item in stretch.chunk.items:
            yield from made(item)
        yield from stretch.advance()


def _video(stretch: Stretch, record: _Record) -> Iterator[Found]:
    """The frames of a video file; what cannot be read ends the chunk."""
    stamp: Stamp | None = None
    assert stretch.chunk is not None
    item = stretch.chunk.items[0]
    try:
        stamp = _stamp(item)
        yield from _frames(stretch, item, stamp, record)
    except Exception as error:  # as above
        yield _unreadable(item, stamp, error)
    if stretch.chunk is not None:
        record.ends[item.input.path, stamp] = stretch.chunk.start
    yield from stretch.end()


def _frames(stretch: Stretch, item: Item, stamp: Stamp, record: _Record) -> Iterator[Found]:
    path, options, chunk = item.input.path, record.options, stretch.chunk
    assert chunk is not None
    selection, every = options.selection, options.selection.every
    info = _probed(path, stamp, options.deinterlace, options.max_pixels)
    refuse_hdr(info, options.from_hdr)
    begin, last = selection.indices()
    phase = begin % every
    if (info.frame_count or 0) > options.max_frames:
        raise _too_long(path, options.max_frames)
    info = replace(info, panorama=options.panorama == "on")
    if chunk.start > record.ends.get((path, stamp), chunk.start):
        return
    if chunk.is_first:
        yield from record.notes(item, info)
    if not item.suffix and record.has_films(item):
        yield Skipped(item, item.output(0))
        return
    # What is finished at the front need not be decoded again. Where the clip ends is left to the decoder, because
    # containers promise more frames than there are, or fewer.
    first = opened = max(begin, chunk.start * every + phase)
    while isinstance(known := record.of(item, first), Skipped):
        yield known
        first += every
        if last is not None and first > last:
            yield Ended(item, info)
            return
        yield from stretch.reach(selection.number(first))
        if stretch.chunk is None:
            return

    def read(first: int, last: int | None, is_warm_up: bool = False) -> Iterator[Work]:
        for frame in read_frames(
            path,
            first=first,
            last=last,
            every=every,
            deinterlace=options.deinterlace,
            max_pixels=options.max_pixels,
            start_number=item.start_number,
            hwaccel=options.hwaccel,
            from_hdr=options.from_hdr,
        ):
            _unchanged(item, stamp)
            if frame.index >= options.max_frames:
                raise _too_long(path, options.max_frames)
            number = selection.number(frame.index)
            yield Work(item, info, frame, item.output(frame.index), stamp, path, number, is_warm_up)

    def earlier(start: int, end: int) -> Iterator[Work]:
        with suppress(Ldr2hdrError):
            yield from read(start * every + phase, (end - 1) * every + phase, is_warm_up=True)

    walk = _Walk(record, earlier if options.is_filtered else None)
    is_empty = first == opened  # nothing was finished at the front
    try:
        for work in read(first, last):
            is_empty = False
            yield from stretch.reach(work.number)
            if stretch.chunk is None:
                return
            if work.frame.note:
                yield Note(item, f"{path}: {work.frame.note}")
            if (yield from walk.step(item, work.frame.index, work.number)):
                yield work
    except Ldr2hdrError as error:
        if is_empty or not item.films:
            raise
        yield _unreadable(item, stamp, error)  # a film is still made of the frames that are good
    if is_empty and chunk.is_first:
        count = f"; it has {info.frame_count}, from number {item.start_number} on" if info.frame_count else ""
        raise Ldr2hdrError(f"{path} has no frame{options.selection.asked()}{count}.")
    yield Ended(item, info)


def _too_long(path: Path, most: int) -> Ldr2hdrError:
    return Ldr2hdrError(f"{path} has more frames than the {most} allowed; raise --max-frames if it is meant.")


def _stamp(item: Item) -> Stamp:
    """What the source is before it is read. Only plain files: a pipe would be waited for, a device has no end."""
    path = item.input.path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Ldr2hdrError(
                f"{path} is not a regular file but a pipe, a device or a directory; copy it into a file."
            )
        return fingerprint(path)
    except OSError as error:
        reason = "it is gone, or a link that leads nowhere" if error.errno == errno.ENOENT else error.strerror
        raise Ldr2hdrError(f"{path} cannot be opened ({reason}).") from None


def source_change(item: Item, stamp: Stamp) -> str:
    """What happened to a source while it was read; empty where nothing did."""
    try:
        if fingerprint(item.input.path) == stamp:
            return ""
        happened = "changed"
    except OSError:
        happened = "disappeared"
    return f"{item.input.path} {happened} while it was being read; run the same command again when it is complete."


def _unchanged(item: Item, stamp: Stamp) -> None:
    if change := source_change(item, stamp):
        raise Ldr2hdrError(change)


def _unreadable(item: Item, stamp: Stamp | None, error: Exception) -> Failed:
    path = item.input.path
    if stamp is not None and (change := source_change(item, stamp)):
        return Failed(item, change)  # that is why it could not be read
    if isinstance(error, Ldr2hdrError):
        return Failed(item, str(error))
    if isinstance(error, MemoryError):
        return Failed(item, f"{path} does not fit into memory.")
    if isinstance(error, OSError):
        return Failed(item, f"{path} cannot be read ({error.strerror or error}).")
    return Failed(item, f"{path} cannot be read: {unforeseen(error)}", cause=error)
