"""Boxes of MP4 and QuickTime files (ISO 14496-12): what FFmpeg's muxer is not given and is put in afterwards."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ldr2hdr_cli.media.light_levels import LightLevels

_ENTRIES = {b"hvc1", b"hev1", b"av01", b"ap4h"}


def boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box from `start` on: its name, and where its content starts and stops."""
    at = start
    while at + 8 <= stop:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = int.from_bytes(file.read(8)), 16
        end = at + size if size else stop
        if end < at + header or end > stop:
            raise ValueError("its boxes do not fit together")
        yield name, at + header, end
        at = end


def add_light_levels(file: BinaryIO, levels: LightLevels) -> None:
    """Put `mdcv` and `clli` into the video's sample entry (ISO 14496-12, 12.1.5), in a file whose `moov` comes last.

    file: open for writing, flushed. Nothing moves but what follows in `moov`, so that no chunk's place changes.
    """
    path = Path(file.name)
    with path.open("rb") as written:
        name, start, stop = list(boxes(written, 0, path.stat().st_size))[-1]
        if name != b"moov":
            raise ValueError(f"{path} ends with {name!r}, not moov")
        written.seek(start)
        moov = written.read(stop - start)
    extra = b"".join(
        struct.pack(">I4s", 8 + len(payload), name) + payload
        for name, payload in ((b"mdcv", levels.mastering_display()), (b"clli", levels.content()))
    )
    content = _with(moov, extra, (b"trak", b"mdia", b"minf", b"stbl", b"stsd"))
    file.seek(start - 8)
    file.write(struct.pack(">I4s", 8 + len(content), b"moov") + content)


def _with(content: bytes, extra: bytes, names: tuple[bytes, ...]) -> bytes:
    """The content of a box with `extra` at the end of every video sample entry below it."""
    made, at = b"", 0
    while at + 8 <= len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        inner = content[at + 8 : at + size]
        if names and name == names[0] == b"stsd":
            inner = inner[:8] + _with(inner[8:], extra, ())
        elif names and name == names[0]:
            inner = _with(inner, extra, names[1:])
        elif not names and name in _ENTRIES:
            inner += extra
        made += struct.pack(">I4s", 8 + len(inner), name) + inner
        at += size
    return made + content[at:]
