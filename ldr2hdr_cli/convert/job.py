"""The plan of a run: which outputs come of which inputs."""

import os
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ldr2hdr_cli.convert.manifest import MANIFEST, Manifest, Settings, fingerprint, sha256
from ldr2hdr_cli.media.formats import FILMS, SUFFIXES, film_suffix
from ldr2hdr_cli.media.sources import Input
from model.errors import Ldr2hdrError

__all__ = [
    "MANIFEST",
    "Item",
    "Manifest",
    "Selection",
    "Settings",
    "fingerprint",
    "plan",
    "sha256",
]

_RESULTS = (*SUFFIXES.values(), ".preview.png")


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip: numbers as in the outputs' names, first and last inclusive."""

    first: int | None = None
    last: int | None = None
    every: int = 1
    start_number: int = 1

    def indices(self) -> tuple[int, int | None]:
        """First and last index in the clip, counted from 0."""
        first = 0 if self.first is None else self.first - self.start_number
        last = None if self.last is None else self.last - self.start_number
        if first < 0 or (last is not None and last < first):
            raise Ldr2hdrError(
                f"--frames asks for {self.first}-{self.last}, but the first frame is number {self.start_number}: "
                "give a range that begins there or later."
            )
        return first, last

    def number(self, index: int) -> int:
        """Of a frame among those that are taken, if they were taken from the clip's beginning."""
        return (index - self.indices()[0] % self.every) // self.every

    def asked(self) -> str:
        """ " in --frames 100-250 --every 2", or nothing where all are asked for."""
        if self.first is None:
            return ""
        last = "" if self.last == self.first else "-" if self.last is None else f"-{self.last}"
        return f" in --frames {self.first}{last}" + (f" --every {self.every}" if self.every > 1 else "")


@dataclass(frozen=True)
class Item:
    """One input, and where its pictures go."""

    input: Input
    folder: Path  # of the outputs
    stem: str
    suffix: str
    films: tuple[str, ...] = ()  # names of the whole clip's files; where there is no suffix, they are all its outputs
    more: tuple[str, ...] = ()  # suffixes of what is written beside each output, in other formats
    start_number: int = 1
    keeps_suffix: bool = False  # that of the source too, because another would have the same name
    name: str = ""  # of --name; empty: what is usual

    def beside(self, output: Path, suffix: str) -> Path:
        """The file of another kind that belongs to an output."""
        return output.with_name(output.name.removesuffix(self.suffix) + suffix)

    def output(self, index: int) -> Path:
        """OUT/photo.exr for a still; OUT/clip/clip.000001.exr for frame 0 of a clip; OUT/clip/clip.hdr10.mp4 of all."""
        if self.films and not self.suffix:
            return self.folder / self.films[0]
        number = self.frame(index) or 0
        return self.folder / f"{self._filled(lambda width: f'{number:0{width}}')}{self.suffix}"

    def frame(self, index: int) -> int | None:
        """The number of a frame, as the outputs count; None for a photograph."""
        return self.input.number if self.input.kind == "still" else self.start_number + index

    def pattern(self) -> Path:
        """As `output`, with ###### for the number of a frame."""
        return self.folder / f"{self._filled(lambda width: '#' * width)}{self.suffix}"

    def frames(self) -> re.Pattern[str]:
        """Names that the frames of a clip may have, without their suffix."""
        return re.compile(self._filled(lambda width: rf"[0-9]{{{width},}}", re.escape), re.IGNORECASE | re.DOTALL)

    def _filled(self, frame: Callable[[int], str], literal: Callable[[str], str] = str) -> str:
        usual = "{stem}" if self.input.kind == "still" else "{stem}.{frame:06d}"
        found = ""
        for text, field_name, spec, _ in string.Formatter().parse(self.name or usual):
            found += literal(text)
            if field_name:
                found += literal(self.stem) if field_name == "stem" else frame(int((spec or "").rstrip("d") or 1))
        return found


def plan(
    inputs: Sequence[Input],
    out: Path,
    suffix: str,
    start_number: int = 1,
    name: str = "",
    more: tuple[str, ...] = (),
    films: tuple[str, ...] = (),
) -> list[Item]:
    """Every input with its outputs, but for what is itself such an output, where sources and results share a place.

    Where two would write one file, their names keep the suffixes of the sources: a.jpg.exr and a.webp.exr. Raises
    Ldr2hdrError where those too are the same, and where `name`, of --name, asks for a number that there is not.
    """
    sources = _without_results(inputs, out, name)
    for source in sources if name else ():
        _check_name(source, name)
    kept: set[int] = set()
    while True:
        items = [
            _item(source, out, suffix, start_number, index in kept, name, more, films)
            for index, source in enumerate(sources)
        ]
        clashes = _clashes(items)
        if not clashes:
            return items
        for clash in clashes:
            left = [index for index in clash if index not in kept and _may_keep(sources[index], out)]
            if not left:
                first, other = (items[index] for index in clash[:2])
                raise Ldr2hdrError(
                    f"{first.input.path} and {other.input.path} would both write {other.output(0)}: rename one, or "
                    "convert them into two directories."
                )
            # A picture makes way for a clip, of which it would write one frame.
            kept.update([index for index in left if sources[index].kind == "still"] or left)


def _check_name(source: Input, name: str) -> None:
    is_still, has_frame = source.kind == "still", "{frame" in name
    if not is_still and not has_frame:
        raise Ldr2hdrError(f"--name {name} would give every frame of {source.path} the same name: put {{frame}} in.")
    if is_still and has_frame and source.number is None:
        raise Ldr2hdrError(
            f"{source.path} has no frame number, which --name {name} asks for: convert it by itself, or give a "
            "sequence such as plate.%04d.png."
        )


def _item(
    source: Input,
    out: Path,
    suffix: str,
    start_number: int,
    keeps_suffix: bool,
    name: str,
    more: tuple[str, ...] = (),
    films: tuple[str, ...] = (),
) -> Item:
    place = out / (_long(source) if keeps_suffix else source.relative)
    folder = place.parent if source.kind == "still" else place
    stem = place.name
    if name and source.sequence and not keeps_suffix:  # plate of plate.%04d.png
        stem = re.split(r"[._ -]*(?:%0?[0-9]{0,3}d|#+)", source.sequence, maxsplit=1)[0] or stem
    names = tuple(place.name + film_suffix(film, source.path) for film in films) if source.kind == "video" else ()
    return Item(source, folder, stem, suffix, names, more, start_number, keeps_suffix, name)


def _long(source: Input) -> PurePath:
    """Where it belongs under the output directory, with its suffix."""
    return source.relative.with_name(source.path.name)


def _may_keep(source: Input, out: Path) -> bool:
    """Not a clip beside its result: the directory for its frames would have its own name."""
    return source.kind == "still" or not (out / _long(source)).is_file()


def _clashes(items: Sequence[Item]) -> list[list[int]]:
    """Those that would write the same file, by their places in `items`."""
    # Case-folded: two names that differ in case are one file on macOS and Windows.
    folders = {str(item.folder).casefold(): item.frames() for item in items if item.input.kind != "still"}
    found: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        folder = str(item.folder).casefold()
        is_still = item.input.kind == "still"
        if is_still and folder in folders:
            # A picture clip/clip.000001.jpg would be written over frame 1 of clip.mp4.
            is_still = not folders[folder].fullmatch(item.output(0).name.removesuffix(item.suffix))
        found.setdefault(str(item.output(0)).casefold() if is_still else folder, []).append(index)
    return [clash for clash in found.values() if len(clash) > 1]


def _without_results(inputs: Sequence[Input], out: Path, name: str) -> list[Input]:
    """So that `convert photos -o photos` does the same the second time."""
    files: set[str] = set()
    folders: dict[str, re.Pattern[str]] = {}
    for source in inputs:
        own = os.path.realpath(source.path)  # photo.exr beside photo.jpg does not make itself
        for item in (_item(source, out, "", 1, keeps_suffix, name) for keeps_suffix in (False, True)):
            if source.kind == "still":
                place = os.path.realpath(item.output(0))
                files |= {place + suffix for suffix in _RESULTS} - {own}
            else:
                folders[os.path.realpath(item.folder)] = item.frames()

    def is_result(one: Input) -> bool:
        path = Path(os.path.realpath(one.path))
        if str(path) in files:
            return True
        frames = folders.get(str(path.parent))
        if frames and re.fullmatch(rf"{re.escape(path.parent.name)}\.({'|'.join(FILMS)})\.(mp4|mov|mkv)", path.name):
            return True
        suffix = next((suffix for suffix in _RESULTS if path.name.endswith(suffix)), None)
        return bool(suffix and frames and frames.fullmatch(path.name.removesuffix(suffix)))

    return [one for one in inputs if not is_result(one)]
