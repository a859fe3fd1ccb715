"""The work list, cut into chunks: what one process does by itself, wherever it runs.

A chunk is a stretch of a clip or a few photographs. Its frames have the bytes that they have in a run of the whole, so
that a job can be cut anywhere: the temporal filter begins anew at every block of frames and is run in before it.
"""

import hashlib
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ldr2hdr_cli.convert.events import Failed, FileEvent
from ldr2hdr_cli.convert.job import Item, Selection
from ldr2hdr_cli.convert.temporal import BLOCK, warm_up

FRAMES = 4 * BLOCK
"""Of a clip, in a chunk. A chunk that does not follow the one before in the same process costs `temporal.WARM_UP`
frames more."""
PICTURES = 16
"""Photographs in a chunk."""


@dataclass(frozen=True)
class Chunk:
    """items: photographs; or one video; or pictures of a numbered sequence that is taken for a clip.

    sequence: of such, these and those before them that decide what they become, as `--every` takes them.

    start, end: numbers of the frames of a clip, counted among those that are taken, from its beginning; end is
    exclusive, None: to the clip's end, wherever that is. is_first: of its clip.
    """

    key: str  # the same in every process that has the same job, wherever its directories are mounted
    turn: int  # consecutive among photographs, and in a clip: what shards count by
    items: tuple[Item, ...]
    clip: Path | None = None
    start: int = 0
    end: int | None = None
    is_first: bool = True
    sequence: tuple[Item, ...] = ()

    def __contains__(self, number: int) -> bool:
        return number >= self.start and (self.end is None or number < self.end)

    def is_before(self, other: "Chunk") -> bool:
        """Whether the other goes on in the same clip where this one ends."""
        return self.clip is not None and self.clip == other.clip and self.end == other.start

    @property
    def name(self) -> str:
        """For people: `plate.mov from 384 on`."""
        first = self.items[0].input.path
        if self.clip is None:
            return f"{first.name} and {len(self.items) - 1} more" if len(self.items) > 1 else first.name
        return f"{self.clip.name} from {self.start} on" if self.start else self.clip.name


@dataclass(frozen=True)
class ChunkEnded:
    """Everything of a chunk has been given. It is not passed on."""

    chunk: Chunk


def cut(
    items: Sequence[Item], selection: Selection, *, is_sequence_clip: bool, length: Callable[[Item], int | None]
) -> Iterator[Chunk | Failed]:
    """The chunks of a job, in the order of its inputs; a Failed for a numbered sequence of which nothing is asked for.

    is_sequence_clip: numbered sequences are clips. length: how many frames a video is said to have; None where that is
    not known, or where it cannot be cut: then it is one chunk.
    """
    photographs = _Photographs()
    for sequence, group in groupby(items, sequence_of):
        members = list(group)
        if sequence is not None:
            chosen = selected(members, selection)
            wanted = [item for item, is_wanted in chosen if is_wanted]
            if not wanted:
                yield from photographs.all()
                yield _none_selected(sequence, members, selection)
                continue
            if is_sequence_clip:
                yield from photographs.all()
                yield from _cut_sequence(wanted, sequence, tuple(item for item, _ in chosen), selection)
                continue
            members = wanted
        for item in members:
            if item.input.kind == "still":
                yield from photographs.add(item)
                continue
            yield from photographs.all()
            yield from _cut_video(item, selection, length(item))
    yield from photographs.all()


class _Photographs:
    """Groups them as they come."""

    def __init__(self) -> None:
        self._waiting: list[Item] = []
        self._turn = 0

    def add(self, item: Item) -> Iterator[Chunk]:
        self._waiting.append(item)
        if len(self._waiting) == PICTURES:
            yield from self.all()

    def all(self) -> Iterator[Chunk]:
        if self._waiting:
            items, self._waiting = tuple(self._waiting), []
            yield Chunk(_key(*(str(item.input.relative / item.output(0).name) for item in items)), self._turn, items)
            self._turn += 1


def _cut_video(item: Item, selection: Selection, length: int | None) -> Iterator[Chunk]:
    begin, last = selection.indices()
    path = item.input.path
    if item.films or length is None:  # the segments of a film are joined by the process that encoded them
        yield Chunk(_clip_key(item, selection), _offset(item), (item,), path)
        return
    last = length - 1 if last is None else min(last, length - 1)
    for start, end, is_first in _stretches(selection.number(begin), selection.number(last)):
        yield _of_clip(item, path, (item,), start, end, is_first, selection)


def _cut_sequence(
    wanted: Sequence[Item], sequence: Path, everything: tuple[Item, ...], selection: Selection
) -> Iterator[Chunk]:
    numbers, known = ([number_of(item, selection) for item in some] for some in (wanted, everything))
    for start, end, is_first in _stretches(numbers[0], numbers[-1]):
        own = tuple(wanted[bisect_left(numbers, start) : None if end is None else bisect_left(numbers, end)])
        if own:
            near = everything[bisect_left(known, warm_up(start)) : None if end is None else bisect_left(known, end)]
            yield replace(_of_clip(wanted[0], sequence, own, start, end, is_first, selection), sequence=near)


def _stretches(first: int, last: int) -> Iterator[tuple[int, int | None, bool]]:
    """Start, end, whether it is the first. first, last: numbers; the last one goes to wherever the clip ends."""
    begin = first // FRAMES * FRAMES
    for start in range(begin, max(first, last) + 1, FRAMES):
        yield start, start + FRAMES if start + FRAMES <= last else None, start == begin


def _of_clip(
    item: Item,
    clip: Path,
    own: tuple[Item, ...],
    start: int,
    end: int | None,
    is_first: bool,
    selection: Selection,
) -> Chunk:
    key = _clip_key(item, selection, str(start))
    return Chunk(key, _offset(item) + start // FRAMES, own, clip, start, end, is_first)


def _offset(item: Item) -> int:
    """So that not every clip begins with the first shard."""
    return zlib.crc32(str(item.input.relative).encode("utf-8", "surrogateescape"))


def _clip_key(item: Item, selection: Selection, *more: str) -> str:
    """Other frames of a clip, or under other names, are other work. The frames of a film are in its settings."""
    asked = () if item.films else (item.pattern().name, str(selection))
    return _key(str(item.input.relative), item.stem, *asked, *more)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def number_of(item: Item, selection: Selection) -> int:
    """Of a picture of a sequence, among those that `--every` takes."""
    return (item.input.number or 0) // selection.every


def sequence_of(item: Item) -> Path | None:
    """What the frames of a numbered sequence have in common."""
    return item.input.path.parent / item.input.sequence if item.input.sequence else None


def selected(items: Sequence[Item], selection: Selection) -> list[tuple[Item, bool]]:
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


def _none_selected(sequence: Path, items: Sequence[Item], selection: Selection) -> Failed:
    numbers = [item.input.number or 0 for item in items]
    return Failed(
        items[0],
        f"{sequence} has no picture{selection.asked()}; their numbers go from {min(numbers)} to {max(numbers)}.",
    )


class Stretch:
    """The chunks of a clip that this process does one after the other, without opening the clip again.

    more: gives the next chunk, if this process has it and it goes on where the one before ends.
    """

    def __init__(self, chunk: Chunk, more: Callable[[Chunk], Chunk | None]) -> None:
        self.chunk: Chunk | None = chunk
        self._more = more

    def advance(self) -> Iterator[ChunkEnded]:
        """Ends the chunk; `chunk` is then the one after it, or None: that is not ours."""
        if (ended := self.chunk) is not None:
            yield ChunkEnded(ended)
            self.chunk = self._more(ended)

    def reach(self, number: int) -> Iterator[ChunkEnded]:
        """As `advance`, until a frame is in the chunk."""
        while self.chunk is not None and number not in self.chunk:
            yield from self.advance()

    def end(self) -> Iterator[ChunkEnded]:
        """Nothing more can come of the clip."""
        if self.chunk is not None:
            yield ChunkEnded(self.chunk)
            self.chunk = None


class Ahead:
    """An iterator of chunks that can be asked whether the next one goes on where another ends."""

    def __init__(self, chunks: Iterable[Chunk | FileEvent]) -> None:
        self._rest = iter(chunks)
        self._next: list[Chunk | FileEvent] = []

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> Chunk | FileEvent:
        return self._next.pop() if self._next else next(self._rest)

    def after(self, chunk: Chunk) -> Chunk | None:
        """The next one, if it follows; it is then taken."""
        if not self._next:
            self._next = [one for one in [next(self._rest, None)] if one is not None]
        if self._next and isinstance(found := self._next[0], Chunk) and chunk.is_before(found):
            self._next.clear()
            return found
        return None
