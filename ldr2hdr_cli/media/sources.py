"""From what the user names (files, directories, globs, numbered sequences) to inputs, and from inputs to frames."""

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from natsort import natsorted

from ldr2hdr_cli.media.heif import HEIF_SUFFIXES, is_sequence
from ldr2hdr_cli.media.limits import MAX_PIXELS
from ldr2hdr_cli.media.raw import RAW_SUFFIXES
from ldr2hdr_cli.media.source_info import Frame, SourceInfo, refuse_hdr
from ldr2hdr_cli.media.stills import HDR_SUFFIXES, probe_still, read_still
from ldr2hdr_cli.media.video import probe_video, read_frames
from model.errors import Ldr2hdrError

__all__ = [
    "Frame",
    "Input",
    "SourceInfo",
    "find_inputs",
    "parse_frames",
    "probe",
    "read_frames",
    "read_still",
    "refuse_hdr",
]

STILL_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".avif", ".bmp", ".gif",
    # Those of other pictures too: what Pillow cannot read is named, and counts as failed, in a folder of others.
    ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".jxr", ".wdp", ".psd", ".psb", ".tga", ".ppm", ".pgm", ".pnm", ".dpx",
    ".cin", ".sgi", ".xcf", ".kra", ".avifs", ".heics", ".heifs",
} | HEIF_SUFFIXES | RAW_SUFFIXES  # fmt: skip
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mxf", ".mpg", ".mpeg", ".m2v", ".ts", ".m2ts", ".mts", ".wmv",
    ".flv", ".ogv", ".3gp", ".dv", ".y4m", ".vob",
}  # fmt: skip
# JPEG, PNG, TIFF, GIF, BMP, WebP, HEIF and AVIF, JPEG 2000, JPEG XL, Photoshop, RAWs, and the HDR formats that are
# refused.
_STILL_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG|II[*+]\0|MM\0[*+]|GIF8|BM.{4}\0\0\0\0|RIFF....WEBP"
    rb"|....ftyp(avi|mif1|msf1|he[iv][cxms]|crx )|\0\0\0\x0cjP  |\0\0\0\x0cJXL |\xff\x0a.{10}|8BPS\0"
    rb"|FUJIFILMCCD|IIR[OS]|MMOR|IIU\0|\0MRM|FOVb|II\x1a\0\0\0HEAP|\x76\x2f\x31\x01|#\?R",
    re.DOTALL,
)

VIEW_FOLDER = "ldr2hdr-view"
"""Where `ldr2hdr view` puts its pictures, which are nobody's source."""
_MAY_BE_CLIPS = {".avif", ".avifs", ".heics", ".heifs"} | HEIF_SUFFIXES
_NUMBER_MARK = "%0?[0-9]{0,3}d|#+"


@dataclass(frozen=True)
class Input:
    """One picture or clip to be converted.

    kind: "still" or "video". relative: its place under the output directory, without a suffix. number: of a picture of
    a numbered sequence; sequence: the pattern that it matched, such as plate.%04d.png.
    """

    path: Path
    kind: str
    relative: PurePath
    number: int | None = None
    sequence: str | None = None


def probe(path: Path, deinterlace: bool = False, max_pixels: int = MAX_PIXELS) -> SourceInfo:
    """What a still or a clip is, before its pixels are read. Raises Ldr2hdrError."""
    if _kind(Path(path)) == "still":
        return probe_still(Path(path), max_pixels)
    return probe_video(Path(path), deinterlace, max_pixels)


def find_inputs(patterns: Sequence[str], *, recursive: bool = False) -> list[Input]:
    """Everything that is named, in natural order: files, directories, globs, `plate.%04d.png`, `plate.####.png`.

    recursive: subdirectories too, their tree kept in `relative`. A file that is named is taken whatever its suffix; of
    a directory, only pictures and clips that are not hidden. Raises Ldr2hdrError for a name with nothing behind it.
    """
    found: dict[str, Input] = {}
    for pattern in patterns:
        try:
            for one in _expand(str(pattern), recursive):
                found.setdefault(os.path.realpath(one.path), one)
        except OSError as error:  # a name that is too long, a directory that may not be entered
            raise Ldr2hdrError(
                f"{pattern}: cannot be looked up ({error.strerror}); check the path and its permissions."
            ) from None
    return list(found.values())


def parse_frames(text: str) -> tuple[int, int | None]:
    """ "100-250", "100-" or "100" → first and last frame number, the last inclusive, None for the end."""
    found = re.fullmatch(r"\s*([0-9]{1,18})\s*(-\s*([0-9]{0,18})\s*)?", text)
    if not found:
        raise Ldr2hdrError(f"--frames {text}: write it like 100-250, 100- or 100.")
    first = int(found[1])
    last = first if found[2] is None else int(found[3]) if found[3] else None
    if last is not None and last < first:
        raise Ldr2hdrError(f"--frames {text}: the last frame comes before the first.")
    return first, last


def _expand(pattern: str, recursive: bool) -> Iterator[Input]:
    path = Path(pattern)
    if path.is_dir():
        yield from _directory(path, recursive)
    elif path.exists():
        yield Input(path, _kind(path), _place(path))
    elif re.search(_NUMBER_MARK, path.name):
        yield from _sequence(path)
    elif glob.has_magic(pattern):
        names = _in_order(_matches(pattern))
        paths = [Path(name) for name in names if _known(Path(name)) and not _is_special(Path(name))]
        if not paths:
            raise Ldr2hdrError(f"{pattern}: no picture or clip matches.")
        for path in paths:
            yield Input(path, _kind(path), _place(path))
    else:
        raise Ldr2hdrError(f"{pattern}: there is no such file or directory.")


def _matches(pattern: str) -> set[str]:
    """As `glob.glob`, but `**` does not follow links: two that loop have more paths than can be walked."""
    parts = PurePath(pattern).parts
    if "**" not in parts:
        return set(glob.glob(pattern))  # noqa: PTH207 - absolute ones too
    at = parts.index("**")
    found: set[str] = set()
    for base in glob.glob(str(PurePath(*parts[:at]))) if at else ["."]:  # noqa: PTH207
        for folder, folders, _ in os.walk(base):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found |= _matches(str(PurePath(glob.escape(folder), *(parts[at + 1 :] or ["*"]))))
    return found


def _place(path: Path) -> PurePath:
    """Its name without the suffix; the whole of a name such as `..jpg`, whose stem would lead elsewhere."""
    return PurePath(path.stem if path.stem.strip(".") else path.name)


def _directory(folder: Path, recursive: bool) -> Iterator[Input]:
    pictures: list[Path] = []

    def unlisted(error: OSError) -> None:
        """A subdirectory that cannot be entered is an input too: it fails by itself, and the others are converted."""
        path = Path(os.fsdecode(error.filename))
        if path == folder:
            raise error
        pictures.append(path)

    for parent, folders, names in os.walk(folder, onerror=unlisted):  # links are not followed: they may loop
        kept = [name for name in folders if not name.startswith(".") and name != VIEW_FOLDER]
        folders[:] = _in_order(kept) if recursive else []
        paths = [Path(parent) / name for name in _in_order(names) if not name.startswith(".")]
        pictures += [path for path in paths if _known(path) and not _is_special(path)]
    if not pictures:
        hint = "" if recursive else "; --recursive looks into subdirectories"
        raise Ldr2hdrError(f"{folder}: no picture or clip in this directory{hint}.")
    for path in pictures:
        yield Input(path, _kind(path), path.relative_to(folder).parent / _place(path))


def _is_special(path: Path) -> bool:
    """A directory, a pipe, a device: passed over where nobody named it.

    A broken or looping link and a path too long for the system are not: they fail later, each with its own message.
    """
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _sequence(pattern: Path) -> Iterator[Input]:
    """The files whose names have a number where the pattern has %04d or ####; at least as many digits as it says."""
    before, mark, after = re.split(f"({_NUMBER_MARK})", pattern.name, maxsplit=1)
    digits = len(mark) if mark.startswith("#") else int(mark.strip("%d") or 1)
    expression = re.compile(re.escape(before) + f"([0-9]{{{digits},}})" + re.escape(after))
    try:
        names = [path.name for path in pattern.parent.iterdir()]
    except OSError as error:
        raise Ldr2hdrError(f"{pattern}: {pattern.parent} cannot be listed ({error.strerror}).") from None
    numbered = sorted((int(match[1]), name) for name in names if (match := expression.fullmatch(name)))
    if not numbered:
        raise Ldr2hdrError(f"{pattern}: no file of this sequence exists.")
    for number, name in numbered:
        path = pattern.parent / name
        yield Input(path, _kind(path), _place(path), number, pattern.name)


def _known(path: Path) -> bool:
    """HDR pictures too: they are refused one by one, with the reason. And pictures by another name, or by none."""
    if path.suffix.lower() in STILL_SUFFIXES | VIDEO_SUFFIXES | HDR_SUFFIXES:
        return True
    return not _is_special(path) and bool(_STILL_START.match(_start(path)))


def _kind(path: Path) -> str:
    """By the suffix, or by the first bytes where the name says nothing; the rest is left to FFmpeg.

    A sequence in HEIF or AVIF has the suffix of a still, and is a clip.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in STILL_SUFFIXES | HDR_SUFFIXES and suffix not in _MAY_BE_CLIPS:
        return "still"
    start = _start(path)
    is_still = _STILL_START.match(start) or suffix in _MAY_BE_CLIPS
    return "still" if is_still and not is_sequence(start) else "video"


def _start(path: Path) -> bytes:
    """Its first bytes; none where it cannot be opened: whoever opens it next says why."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a path is too long
        return b""
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError:
        return b""


def _in_order(names: Iterable[str]) -> list[str]:
    """plate2 before plate10; names that natural order takes for equal, as 1 and 01, by their letters."""
    return natsorted(sorted(names))
