"""The plan of a run: inputs → outputs, what is already done, and the manifest that knows."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ldr2hdr_cli.sources import Input
from model.errors import Ldr2hdrError

MANIFEST = "ldr2hdr-manifest.jsonl"
LOCK = ".ldr2hdr.lock"


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of an output, besides its source. Written into every EXR and the manifest."""

    method: str = "network"
    weights: str = ""  # sha256
    precision: str = "fp32"
    tile: str = "auto"
    overlap: int = 128
    memory: str = "auto"
    transfer: str = "gamma"
    gamma: float = 2.0
    exposure: float = 0.0  # stops
    format: str = "exr"
    half: bool = True
    compression: str = "zip"
    dwa_level: float = 45.0
    deinterlace: bool = False
    preview: str = "none"
    version: str = ""

    def as_strings(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


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

    def takes(self, index: int) -> bool:
        first, last = self.indices()
        return index >= first and (last is None or index <= last) and (index - first) % self.every == 0


@dataclass(frozen=True)
class Item:
    """One input, and where its pictures go."""

    input: Input
    folder: Path  # of the outputs
    stem: str
    suffix: str
    start_number: int = 1

    def output(self, index: int) -> Path:
        """OUT/photo.exr for a still; OUT/clip/clip.000001.exr for frame 0 of a clip."""
        if self.input.kind == "still":
            return self.folder / f"{self.stem}{self.suffix}"
        return self.folder / f"{self.stem}.{self.start_number + index:06d}{self.suffix}"


def plan(inputs: Sequence[Input], out: Path, suffix: str, start_number: int = 1) -> list[Item]:
    """Every input with its outputs. Raises Ldr2hdrError when two would write one file."""
    items: list[Item] = []
    taken: dict[str, Input] = {}
    for source in inputs:
        place = out / source.relative
        folder = place.parent if source.kind == "still" else place
        item = Item(source, folder, place.name, suffix, start_number)
        # Case-folded: two names that differ in case are one file on macOS and Windows.
        key = str(item.output(0) if source.kind == "still" else folder / "*").casefold()
        if other := taken.get(key):
            raise Ldr2hdrError(
                f"{other.path} and {source.path} would both write {item.output(0)}: rename one, or convert them into "
                "two directories."
            )
        taken[key] = source
        items.append(item)
    return items


@dataclass
class Manifest:
    """A JSON-lines file beside the outputs: one line for each finished file, appended and flushed.

    A torn last line, which a power cut leaves, is passed over; of two lines about one output the later counts.
    """

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    _file: IO[str] | None = None

    @classmethod
    def read(cls, out: Path) -> "Manifest":
        manifest = cls(out / MANIFEST)
        if manifest.path.exists():
            for line in manifest.path.read_text("utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    manifest.entries[entry["output"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
        return manifest

    def add(self, entry: dict[str, Any]) -> None:
        """Called from one thread only."""
        self.entries[entry["output"]] = entry
        try:
            if self._file is None:
                torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
                self._file = self.path.open("a", encoding="utf-8")
                self._file.write("\n" if torn and self.path.stat().st_size else "")
            self._file.write(json.dumps(entry, sort_keys=True) + "\n")
            self._file.flush()
        except OSError as error:
            raise Ldr2hdrError(
                f"{self.path} cannot be written ({error.strerror}): make space or allow writing."
            ) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def finished(self, output: Path, source: Path, settings: Settings, verify: bool = False) -> bool:
        """Whether `output` stands there whole, made from this very source with these settings.

        verify: compare its checksum too, and not only its size.
        """
        entry = self.entries.get(self.name(output))
        if entry is None or entry.get("settings") != settings.digest():
            return False
        try:
            if output.stat().st_size != entry["bytes"] or fingerprint(source) != (entry["size"], entry["modified"]):
                return False
            return not verify or sha256(output) == entry["sha256"]
        except (OSError, KeyError):
            return False

    def name(self, output: Path) -> str:
        return output.relative_to(self.path.parent).as_posix()


def fingerprint(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Hold the output directory; a second run into it is refused. The system drops the lock of a killed run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        holder = FileLock(out / LOCK, timeout=0)
        holder.acquire()
    except Timeout:
        raise Ldr2hdrError(f"{out} is in use by another run of ldr2hdr: wait for it, or choose another -o.") from None
    except OSError as error:
        raise Ldr2hdrError(
            f"{out} cannot be written ({error.strerror}): allow writing, or choose another -o."
        ) from None
    try:
        _sweep(out)
        yield
    finally:
        holder.release()


def _sweep(out: Path) -> None:
    """Remove what a killed run left half-written; the lock says that nobody is writing it now."""
    for folder, _, names in os.walk(out):
        for name in names:
            if name.startswith(".ldr2hdr-") and name.endswith(".tmp"):
                (Path(folder) / name).unlink(missing_ok=True)
