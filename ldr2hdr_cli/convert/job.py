"""The plan of a run: which outputs come of which inputs, and the manifest of those that are finished."""

import hashlib
import json
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock, Timeout

from ldr2hdr_cli.media.formats import FILMS, SUFFIXES, film_suffix
from ldr2hdr_cli.media.sources import Input
from model.atomic import sweep
from model.errors import Ldr2hdrError

MANIFEST = "ldr2hdr-manifest.jsonl"
LOCK = ".ldr2hdr.lock"
_RESULTS = (*SUFFIXES.values(), ".preview.png")


class RunError(Ldr2hdrError):
    """A fault after which no other output of the run can succeed."""


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of an output, besides its source. Written into every EXR and the manifest."""

    values: Mapping[str, Any] = field(default_factory=dict)  # `ConvertOptions.deciding`, and what the run settled

    @property
    def weights(self) -> str:
        """Their sha256; empty without a network."""
        return self.values.get("weights", "")

    def as_strings(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.values.items()}

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(dict(self.values), sort_keys=True).encode()).hexdigest()[:16]


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
        number = (self.input.number or 0) if self.input.kind == "still" else self.start_number + index
        return self.folder / f"{self._filled(lambda width: f'{number:0{width}}')}{self.suffix}"

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


@dataclass
class Manifest:
    """A JSON-lines file beside the outputs: one line for each finished file, appended and flushed.

    Lines about an output hold its source (absolute path, size, modified; `source_sha256` where it was asked for), the
    frame, the digest of the settings, that of the pictures before it where they decide a frame of a numbered sequence
    (`basis`), the weights and the output's checksum. Others spell a digest out, or say why a source or a frame of it
    failed, which counts until it is converted. A torn line, which a power cut or a full disk leaves, is passed over; of
    two lines about one output the later counts.
    """

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by their digests
    failures: dict[tuple[str, int | None], str] = field(default_factory=dict)  # source and frame → message
    place: tuple[int, int] | None = None  # device and inode of the output directory
    _file: int | None = None

    @classmethod
    def read(cls, out: Path) -> "Manifest":
        manifest = cls(out / MANIFEST)
        try:
            stat = out.stat()
            manifest.place = stat.st_dev, stat.st_ino
            text = manifest.path.read_text("utf-8", errors="replace") if manifest.path.exists() else ""
        except OSError as error:
            raise Ldr2hdrError(
                f"{manifest.path} cannot be read ({error.strerror}): allow reading, or choose another -o."
            ) from None
        for line in text.split("\n"):
            try:
                entry = json.loads(line)
                if "output" in entry:
                    manifest.entries[entry["output"]] = entry
                    for frame in (None, entry.get("frame")):
                        manifest.failures.pop((entry.get("source"), frame), None)
                elif "failed" in entry:
                    manifest.failures[entry["failed"], entry.get("frame")] = str(entry["message"])
                else:
                    manifest.settings[entry["digest"]] = dict(entry["settings"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return manifest

    def add(self, entry: dict[str, Any], settings: Settings | None = None) -> None:
        """Called from one thread only. Raises RunError: what cannot be recorded would be made again and again."""
        self.check_place()
        lines = []
        if settings is not None:
            digest = settings.digest()
            entry = {**entry, "settings": digest, "weights": settings.weights}
            if digest not in self.settings:
                lines.append({"digest": digest, "settings": dict(settings.values)})
        self._append(*lines, entry)
        self.entries.pop(entry["output"], None)  # not asked for again: a long run's memory stays flat
        if settings is not None:
            self.settings[digest] = dict(settings.values)

    def add_failure(self, source: Path, frame: int | None, message: str) -> None:
        """For those who look at the job later: a failure is tried again by the next run. Raises RunError."""
        key = str(absolute(source)), frame
        if self.failures.get(key) != message:
            self.check_place()
            self._append({"failed": key[0], "frame": frame, "message": message})
            self.failures[key] = message

    def _append(self, *entries: dict[str, Any]) -> None:
        lines = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)
        try:
            if self._file is None:
                torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
                self._file = os.open(
                    self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
                )
                lines = "\n" + lines if torn and self.path.stat().st_size else lines
            _write(self._file, lines.encode())
            if not self.path.exists():
                raise FileNotFoundError(0, "it was removed during the run")
        except OSError as error:
            self.close()  # the next line begins by mending the torn one
            raise RunError(f"{self.path} cannot be written ({error.strerror}): make space or allow writing.") from error

    def check_place(self) -> None:
        """Raises RunError when the output directory is no longer the one that was locked: removed, or unmounted.

        Made again under its name it would lie on another disk, or lack what was finished before.
        """
        try:
            stat = self.path.parent.stat()
            gone = self.place is not None and self.place != (stat.st_dev, stat.st_ino)
        except OSError:
            gone = True
        if gone:
            raise RunError(f"{self.path.parent} disappeared during the run: bring it back (is its disk mounted?).")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def finished(self, output: Path, source: Path, settings: Settings, verify: bool = False) -> bool:
        """Whether `output` stands there whole, made from this very source with these settings.

        verify: compare its checksum too, and not only its size.
        """
        return self.recorded(output, source, settings) and (not verify or self.verified(output, source))

    def recorded(self, output: Path, source: Path, settings: Settings, basis: str = "") -> bool:
        """Whether the manifest has `output`, in the size it has, from this source as it is now, with these settings.

        basis: digest of the other files that decide it.
        """
        entry = self.entries.get(self.name(output))
        if entry is None or entry.get("settings") != settings.digest() or entry.get("source") != str(absolute(source)):
            return False
        if entry.get("basis", "") != basis:
            return False
        try:
            if output.stat().st_size != entry["bytes"]:
                return False
            if any((output.parent / name).stat().st_size != size for name, (size, _) in entry.get("more", {}).items()):
                return False
            size, modified = fingerprint(source)
            if size != entry["size"]:
                return False
            # A source that was copied or touched is known by its checksum, where the manifest has one.
            return modified == entry["modified"] or source_sha256(source, size, modified) == entry["source_sha256"]
        except (OSError, KeyError):
            return False

    def other_settings(self, output: Path, settings: Settings) -> str:
        """What was otherwise when `output` was made, "transfer gamma, now auto"; empty where nothing was."""
        entry = self.entries.get(self.name(output))
        if entry is None or entry.get("settings") == settings.digest():
            return ""
        old, new = self.settings.get(entry.get("settings", ""), {}), settings.values
        changed = [name for name in new if old.get(name) != new[name]]
        shown = [f"{name} {str(old[name])[:12]}, now {str(new[name])[:12]}" for name in changed if name in old]
        return "; ".join(shown) or "settings of another version"

    def verified(self, output: Path, source: Path) -> bool:
        """Whether a recorded output, and its source where that has a checksum, still have every byte."""
        entry = self.entries[self.name(output)]
        try:
            if "source_sha256" in entry and source_sha256(source, *fingerprint(source)) != entry["source_sha256"]:
                return False
            more = entry.get("more", {}).items()
            return sha256(output) == entry.get("sha256") and all(
                sha256(output.parent / name) == digest for name, (_, digest) in more
            )
        except OSError:
            return False

    def name(self, output: Path) -> str:
        return output.relative_to(self.path.parent).as_posix()


def _write(file: int, data: bytes) -> None:
    """All of it: on a disk that fills up the system takes a part, and tells the next time."""
    while data:
        data = data[os.write(file, data) :]


def absolute(path: Path) -> Path:
    """Without looking at links: it is kept as it was named."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`


def fingerprint(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=16)
def source_sha256(path: Path, _size: int, _modified: int) -> str:
    """Read once for all the frames of a clip."""
    return sha256(path)


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Hold the output directory; a second run into it is refused. The system drops the lock of a killed run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Not a lock of this thread: an iterator may be closed in another one.
        holder = FileLock(out / LOCK, timeout=0, thread_local=False)
        holder.acquire()
    except Timeout:
        raise Ldr2hdrError(f"{out} is in use by another run of ldr2hdr: wait for it, or choose another -o.") from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or str(error)
        raise Ldr2hdrError(f"{out} cannot be written ({reason}): allow writing, or choose another -o.") from None
    try:
        _sweep(out)
        yield
    finally:
        holder.release()


def _sweep(out: Path) -> None:
    """Remove what a killed run left half-written; the lock says that nobody is writing it now."""
    for folder, _, _ in os.walk(out):
        sweep(Path(folder))
