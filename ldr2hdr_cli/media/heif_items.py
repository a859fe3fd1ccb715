"""The tone-map item of HEIF and AVIF, which neither libheif nor libavif's bindings give: found in the container.

ISO 21496-1 in HEIF is a derived item, `tmap`, of a base and a hidden gain map (ISO 23008-12:2025, 6.6.2.4).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HIDDEN = 1  # a flag of an item


@dataclass(frozen=True)
class _Box:
    """name, and where its body stands in the file."""

    name: bytes
    start: int
    end: int


def tone_map(data: bytes) -> tuple[bytes, bytes] | None:
    """(metadata of ISO 21496-1, the same file with the gain map for its primary picture), or None.

    data: a HEIF or AVIF. Raises ValueError or struct.error where its boxes contradict each other.
    """
    meta = _child(data, 0, len(data), b"meta")
    if meta is None:
        return None
    inside = {box.name: box for box in _boxes(data, meta.start + 4, meta.end)}
    if not inside.keys() >= {b"pitm", b"iinf", b"iref", b"iloc"}:
        return None
    items = dict(_items(data, inside[b"iinf"]))
    wanted = [number for number, (kind, _) in items.items() if kind == b"tmap"]
    if not wanted:
        return None
    sources = _derived(data, inside[b"iref"], wanted[0])
    if len(sources) != 2 or sources[1] not in items:
        raise ValueError("its tone map is not made of two pictures")
    place = inside[b"pitm"].start
    patched = bytearray(data)
    struct.pack_into(">I" if data[place] else ">H", patched, place + 4, sources[1])
    patched[items[sources[1]][1]] &= ~_HIDDEN & 0xFF
    return _extent(data, inside, wanted[0])[1:], bytes(patched)  # its first byte is a version


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """Those in a row (ISO 14496-12, 4.2)."""
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        size = size or end - start
        if size < head:
            return
        yield _Box(name, start + head, min(start + size, end))
        start += size


def _child(data: bytes, start: int, end: int, name: bytes) -> _Box | None:
    return next((box for box in _boxes(data, start, end) if box.name == name), None)


def _items(data: bytes, iinf: _Box) -> Iterator[tuple[int, tuple[bytes, int]]]:
    """(number, (kind, where the byte with its flags stands)) of each item."""
    start = iinf.start + (8 if data[iinf.start] else 6)
    for box in _boxes(data, start, iinf.end):
        version = data[box.start]
        if box.name == b"infe" and version in (2, 3):
            (number,) = struct.unpack_from(">H" if version == 2 else ">I", data, box.start + 4)
            at = box.start + (8 if version == 2 else 10)
            yield number, (data[at : at + 4], box.start + 3)


def _derived(data: bytes, iref: _Box, number: int) -> list[int]:
    """From which items an item is made, in order."""
    form, size = (">I", 4) if data[iref.start] else (">H", 2)
    for box in _boxes(data, iref.start + 4, iref.end):
        (this,) = struct.unpack_from(form, data, box.start)
        if box.name == b"dimg" and this == number:
            (count,) = struct.unpack_from(">H", data, box.start + size)
            first = box.start + size + 2
            return [struct.unpack_from(form, data, first + size * place)[0] for place in range(count)]
    return []


def _extent(data: bytes, inside: dict[bytes, _Box], number: int) -> bytes:
    """The bytes of an item of one extent, in the file or in `idat` (ISO 14496-12, 8.11.3)."""
    at = inside[b"iloc"].start
    version, sizes = data[at], (data[at + 4] >> 4, data[at + 4] & 15, data[at + 5] >> 4)
    index_size = data[at + 5] & 15 if version else 0
    offset_size, length_size, base_size = sizes
    wide = version == 2

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    at += 6
    for _ in range(take(4 if wide else 2)):
        this = take(4 if wide else 2)
        method = take(2) & 15 if version else 0
        take(2)  # which file: this one
        base = take(base_size)
        extents = [(take(index_size), take(offset_size), take(length_size)) for _ in range(take(2))]
        if this == number and len(extents) == 1 and method in (0, 1) and (not method or b"idat" in inside):
            start = base + extents[0][1] + (inside[b"idat"].start if method else 0)
            return data[start : start + extents[0][2]]
    raise ValueError("its tone map has no place in the file")
