"""What a run tells about itself: one event for each file written, passed over or failed, and what was assumed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldr2hdr_cli.convert.job import Item
from ldr2hdr_cli.media.source_info import SourceInfo


@dataclass
class Spent:
    """Seconds of a thread's time that one file took; waiting for another thread is not counted.

    read: opening, seeking and decoding. reconstruct: the network or operator, eq. 1, the temporal filter. write:
    encoding, flushing to the disk, the checksum, and what --verify reads. Several files are in hand at a time, so
    that the sum over all of them is more than the time of the run.
    """

    read: float = 0.0
    reconstruct: float = 0.0
    write: float = 0.0

    @property
    def total(self) -> float:
        return self.read + self.reconstruct + self.write


@dataclass(frozen=True)
class Done:
    """One file written."""

    item: Item
    output: Path
    frame: int | None
    megapixels: float
    clipped: float  # share of pixels with a channel above the mask's threshold
    peak: float  # largest value, LDR white = 1.0
    clamped: int  # values above half's range
    entry: dict[str, Any]  # what the manifest keeps of it
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True)
class Failed:
    """One input, or the rest of one clip, that could not be converted.

    ends_run: nothing that comes after it can succeed, so the run stops here. cause: what our own code did not foresee.
    """

    item: Item
    message: str
    frame: int | None = None
    ends_run: bool = False
    cause: Exception | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is already there, finished, with the same settings."""

    item: Item
    output: Path


@dataclass(frozen=True)
class Elsewhere:
    """What another process of the same job has made of an input, or of a stretch of it: so many files."""

    item: Item
    made: int
    by: str


@dataclass(frozen=True)
class Note:
    """Something assumed about an input."""

    item: Item
    message: str


@dataclass(frozen=True)
class Ended:
    """For the films of a run: every frame of a clip that is asked for has been given. It is not passed on."""

    item: Item
    info: SourceInfo


@dataclass(frozen=True)
class Started:
    """The work begins: so many inputs."""

    total: int


@dataclass(frozen=True)
class Message:
    """Something that concerns the whole run, such as a device that ran out of memory."""

    text: str


FileEvent = Done | Failed | Skipped | Elsewhere | Note
Event = Started | Message | FileEvent


def unforeseen(error: Exception) -> str:
    """The end of a message about an error that no code of ours expects."""
    return f"unexpected {type(error).__name__} ({' '.join(str(error).split())[:300]}); please report it."
