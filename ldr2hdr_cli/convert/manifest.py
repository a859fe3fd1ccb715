"""What is finished: the manifest of a job, and the fingerprints by which files are known again."""

import glob
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from model.errors import Ldr2hdrError

MANIFEST = "ldr2hdr-manifest"
EARLIER = "ldr2hdr-manifest.jsonl"
"""Of versions that kept a job's manifest in one file."""
BLOCK = 960
"""Frames of a clip in one part."""
_PARTS = 16  # in memory
_AT_A_TIME = 10_000  # entries of an earlier manifest


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

    def changed_from(self, old: Mapping[str, Any]) -> str:
        """ "transfer gamma, now auto"; empty where nothing that both have is otherwise."""
        changed = [name for name, value in self.values.items() if name in old and old[name] != value]
        return "; ".join(f"{name} {str(old[name])[:12]}, now {str(self.values[name])[:12]}" for name in changed)

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(dict(self.values), sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class _Part:
    """The lines of one part of a manifest, whoever has written them. path: without `@HOST.jsonl`."""

    path: Path
    lines: dict[str, bytes] = field(default_factory=dict)  # the latest of each output; parsed when it is asked for
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by their digests
    failures: dict[tuple[str, int | None], str] = field(default_factory=dict)  # source and frame → message
    read: dict[Path, int] = field(default_factory=dict)  # how much of each file is known
    is_fresh: bool = False
    file: int | None = None

    def refresh(self) -> None:
        """Read what has been appended. A line that is torn, or not ended yet, is passed over."""
        for path in sorted(self.path.parent.glob(glob.escape(self.path.name) + "@*.jsonl")):
            with path.open("rb") as file:
                file.seek(self.read.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self.read[path] = self.read.get(path, 0) + whole
            for line in data[:whole].split(b"\n"):
                self._take(line)
        self.is_fresh = True

    def _take(self, line: bytes) -> None:
        entry = _parsed(line)
        if "output" in entry:
            known = self.lines.get(entry["output"])
            if known is None or _parsed(known).get("time", 0) <= entry.get("time", 0):
                self.lines[entry["output"]] = line
            self.failures.pop((entry["source"], entry["frame"]), None)
        elif "failed" in entry:
            self.failures[entry["failed"], entry["frame"]] = entry["message"]
        elif "digest" in entry:
            self.settings[entry["digest"]] = entry["settings"]

    def append(self, *entries: dict[str, Any]) -> None:
        """Raises OSError."""
        path = self.path.with_name(f"{self.path.name}@{_writer()}.jsonl")
        lines = b"".join(json.dumps(entry, sort_keys=True).encode() + b"\n" for entry in entries)
        if self.file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self.file = os.open(path, flags, 0o666)
            size = os.fstat(self.file).st_size
            if size and os.lseek(self.file, -1, os.SEEK_END) >= 0 and os.read(self.file, 1) != b"\n":
                lines = b"\n" + lines  # after a torn one
        _write(self.file, lines)
        if not path.exists():
            raise FileNotFoundError(0, "it was removed during the run")

    def take_over(self, entries: Sequence[dict[str, Any]], settings: Mapping[str, dict[str, Any]]) -> None:
        """Entries of another manifest, and the settings that they were made with. Raises OSError."""
        digests = {entry.get("settings") for entry in entries} & settings.keys() - self.settings.keys()
        new = {str(digest): settings[str(digest)] for digest in sorted(map(str, digests))}
        self.settings.update(new)
        self.append(*({"digest": digest, "settings": values} for digest, values in new.items()), *entries)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


@dataclass
class Manifest:
    """JSON lines beside the outputs: one for each finished file, appended and flushed.

    They lie in parts, so that a job of ten million frames is opened at once and read where it is needed: a part for
    BLOCK frames of a folder, another for its photographs and films, and of each a file for every host that has written
    to it, since two hosts cannot append to one file on NFS: `ldr2hdr-manifest/clip/000000960@HOST.jsonl`. SQLite would
    need locks that network file systems do not keep (sqlite.org/useovernet.html), and its WAL shared memory.

    Lines about an output hold its source (absolute path, size, modified; `source_sha256` where it was asked for), the
    frame, the digest of the settings, that of the pictures before it where they decide a frame of a numbered sequence
    (`basis`), the weights, the output's checksum, and the time. Others spell a digest out, or say why a source or a
    frame of it failed, which counts until it is converted. A torn line, which a power cut or a full disk leaves, is
    passed over; of two lines about one output the later counts. Safe to use from several threads.
    """

    out: Path
    place: tuple[int, int] | None = None  # device and inode of the output directory
    _parts: OrderedDict[Path, _Part] = field(default_factory=OrderedDict)  # the one used last is last
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def read(cls, out: Path) -> "Manifest":
        """Opens it; a manifest of one file, of an earlier version, is cut into parts. Raises Ldr2hdrError."""
        manifest = cls(out)
        try:
            stat = out.stat()
            manifest.place = stat.st_dev, stat.st_ino
            manifest._divide(out / EARLIER)
        except OSError as error:
            raise Ldr2hdrError(
                f"{error.filename or manifest.path} cannot be read ({error.strerror}): allow reading and writing, or "
                "choose another -o."
            ) from None
        return manifest

    @property
    def path(self) -> Path:
        return self.out / MANIFEST

    def _divide(self, earlier: Path) -> None:
        """A run that is killed in here does it again, and two may do it at once: of two equal lines one counts."""
        try:
            file = earlier.open("rb")
        except FileNotFoundError:
            return
        settings: dict[str, dict[str, Any]] = {}
        with file:
            lines = (
                {"time": number / 1e6, **entry} for number, line in enumerate(file) if (entry := _parsed(line))
            )  # what came later counts
            while some := list(islice(lines, _AT_A_TIME)):
                by_part: dict[tuple[Path, int | None], list[dict[str, Any]]] = {}
                for entry in some:
                    if "digest" in entry:
                        settings[entry["digest"]] = entry["settings"]
                        continue
                    frame = entry["frame"] if "output" in entry else None
                    place = (self.out / entry.get("output", "any")).parent, frame and frame // BLOCK * BLOCK
                    by_part.setdefault(place, []).append(entry)
                for (folder, frame), entries in by_part.items():
                    self._part(folder / "any", frame).take_over(entries, settings)
        self.flush()
        self._parts.clear()
        with suppress(FileNotFoundError):  # another process has done the same meanwhile
            earlier.replace(earlier.with_suffix(".old"))

    def _part(self, output: Path, frame: int | None) -> _Part:
        """The one that has this output; the frame as its entry has it."""
        folder = self.path / output.relative_to(self.out).parent
        path = folder / ("pictures" if frame is None else f"{frame // BLOCK * BLOCK:09d}")
        part = self._parts.get(path)
        if part is None:
            part = self._parts[path] = _Part(path)
            while len(self._parts) > _PARTS:
                self._parts.popitem(last=False)[1].close()
        self._parts.move_to_end(path)
        return part

    def _known(self, output: Path, frame: int | None) -> _Part:
        part = self._part(output, frame)
        if not part.is_fresh:
            try:
                part.refresh()
            except OSError as error:
                raise Ldr2hdrError(f"{error.filename} cannot be read ({error.strerror}): allow reading.") from None
        return part

    def entry(self, output: Path, frame: int | None = None) -> dict[str, Any] | None:
        """What was kept of an output; frame: its number, None for a photograph or film. Raises Ldr2hdrError."""
        with self._lock:
            line = self._known(output, frame).lines.get(self.name(output))
        return None if line is None else _parsed(line)

    def forget(self) -> None:
        """Others may have recorded something: read it when it is asked for."""
        with self._lock:
            for part in self._parts.values():
                part.is_fresh = False

    def flush(self) -> None:
        """Everything recorded so far can be seen from other machines (NFS: close-to-open)."""
        with self._lock:
            for part in self._parts.values():
                part.close()

    def add(self, entry: dict[str, Any], settings: Settings | None = None) -> None:
        """Raises RunError: what cannot be recorded would be made again and again."""
        self.check_place()
        lines = []
        entry = {**entry, "time": round(time.time(), 3)}
        with self._lock:
            part = self._part(self.out / entry["output"], entry.get("frame"))
            if settings is not None:
                digest = settings.digest()
                entry |= {"settings": digest, "weights": settings.weights}
                if digest not in part.settings:
                    lines.append({"digest": digest, "settings": dict(settings.values)})
            self._append(part, *lines, entry)
            part.lines.pop(entry["output"], None)  # not asked for again: a long run's memory stays flat
            if settings is not None:
                part.settings[digest] = dict(settings.values)

    def add_failure(self, output: Path, source: Path, frame: int | None, message: str) -> None:
        """For those who look at the job later: a failure is tried again by the next run. Raises RunError.

        output: of the frame, or any of the source.
        """
        key = str(absolute(source)), frame
        with self._lock:
            part = self._known(output, frame)
            if part.failures.get(key) != message:
                self.check_place()
                entry = {"failed": key[0], "frame": frame, "message": message, "time": round(time.time(), 3)}
                self._append(part, entry)
                part.failures[key] = message

    def _append(self, part: _Part, *entries: dict[str, Any]) -> None:
        try:
            part.append(*entries)
        except OSError as error:
            part.close()  # the next line begins by mending the torn one
            raise RunError(f"{self.path} cannot be written ({error.strerror}): make space or allow writing.") from error

    def everything(self) -> "Contents":
        """All of it, for those who look at a job as a whole. Raises Ldr2hdrError."""
        found = Contents()
        failures: dict[tuple[str, int | None], tuple[float, str]] = {}
        made: dict[tuple[str, int | None], float] = {}  # when
        try:
            earlier = [path for path in [self.out / EARLIER] if path.is_file()]
            for path in [*earlier, *sorted(self.path.rglob("*@*.jsonl"))]:
                for number, entry in enumerate(map(_parsed, path.read_bytes().split(b"\n"))):
                    time = entry.get("time", number / 1e6)
                    if "output" in entry:
                        if found.entries.get(entry["output"], {}).get("time", 0) <= time:
                            found.entries[entry["output"]] = entry
                        for frame in {None, entry["frame"]}:
                            key = entry["source"], frame
                            made[key] = max(made.get(key, 0), time)
                    elif "failed" in entry:
                        failures[entry["failed"], entry["frame"]] = time, entry["message"]
                    elif "digest" in entry:
                        found.settings[entry["digest"]] = entry["settings"]
        except OSError as error:
            raise Ldr2hdrError(f"{error.filename} cannot be read ({error.strerror}): allow reading.") from None
        found.failures = {key: message for key, (time, message) in failures.items() if time > made.get(key, -1)}
        return found

    def check_place(self) -> None:
        """Raises RunError when the output directory is no longer the one that was locked: removed, or unmounted.

        Made again under its name it would lie on another disk, or lack what was finished before.
        """
        try:
            stat = self.out.stat()
            gone = self.place is not None and self.place != (stat.st_dev, stat.st_ino)
        except OSError:
            gone = True
        if gone:
            raise RunError(f"{self.out} disappeared during the run: bring it back (is its disk mounted?).")

    def close(self) -> None:
        self.flush()

    def finished(
        self, output: Path, source: Path, settings: Settings, verify: bool = False, frame: int | None = None
    ) -> bool:
        """Whether `output` stands there whole, made from this very source with these settings.

        verify: compare its checksum too, and not only its size. frame: its number, None for a photograph or film.
        """
        is_there = self.recorded(output, source, settings, frame=frame)
        return is_there and (not verify or self.verified(output, source, frame))

    def recorded(
        self, output: Path, source: Path, settings: Settings, basis: str = "", frame: int | None = None
    ) -> bool:
        """Whether the manifest has `output`, in the size it has, from this source as it is now, with these settings.

        basis: digest of the other files that decide it.
        """
        entry = self.entry(output, frame)
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

    def other_settings(self, output: Path, settings: Settings, frame: int | None = None) -> str:
        """What was otherwise when `output` was made, "transfer gamma, now auto"; empty where nothing was."""
        entry = self.entry(output, frame)
        if entry is None or entry.get("settings") == settings.digest():
            return ""
        with self._lock:
            old = self._known(output, frame).settings.get(entry.get("settings", ""), {})
        return settings.changed_from(old) or "settings of another version"

    def verified(self, output: Path, source: Path, frame: int | None = None) -> bool:
        """Whether a recorded output, and its source where that has a checksum, still have every byte."""
        entry = self.entry(output, frame)
        if entry is None:
            return False
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
        """By which entries know it."""
        return output.relative_to(self.out).as_posix()


@dataclass
class Contents:
    """entries: by the outputs' names. settings: by their digests. failures: by source and frame."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[tuple[str, int | None], str] = field(default_factory=dict)


def _parsed(line: bytes) -> dict[str, Any]:
    """An entry; empty where the line is torn, or none of ours."""
    try:
        entry = json.loads(line)
        if "digest" in entry:
            return {"digest": str(entry["digest"]), "settings": dict(entry["settings"])}
        is_failure = "failed" in entry
        needed = {"failed": str, "message": str} if is_failure else {"output": str}
        if not all(isinstance(entry[name], kind) for name, kind in needed.items()):
            return {}
        return {"frame": None, "source": "", **entry}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


@lru_cache(maxsize=1)
def _writer() -> str:
    """Names this host, as it was started, in the names of files."""
    host = re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())[:48]
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        boot = f"{uuid.getnode():x}"
    return f"{host}-{hashlib.sha256(boot.encode()).hexdigest()[:4]}"


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
