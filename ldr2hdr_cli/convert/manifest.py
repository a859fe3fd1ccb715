"""What is finished: the manifest of a job, and the fingerprints by which files are known again."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.errors import Ldr2hdrError

MANIFEST = "ldr2hdr-manifest.jsonl"


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
