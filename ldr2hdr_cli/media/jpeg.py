"""The segments of a JPEG (ITU-T T.81, annex B), and the names under which some carry more than the picture."""

import struct

SOS, EOI, APP0, APP1, APP2, COM = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xFE
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
MPF = b"MPF\0"
LARGEST = 65533  # bytes in one segment
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


Place = tuple[int, int, int]
"""A segment: its marker, where it starts (at 0xFF), and where it stops."""


def headers(data: bytes) -> list[Place]:
    """Every segment of a JPEG before its first scan. Raises ValueError where there is none."""
    places, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == SOS:
            break
        stop = at + 2 if marker in _BARE else at + 2 + int.from_bytes(data[at + 2 : at + 4])
        places.append((marker, at, stop))
        at = stop
    if not places or at >= len(data):
        raise ValueError("it has no picture inside")
    return places


def end_of_first(data: bytes) -> int:
    """Where the first picture of a JPEG ends, behind its EOI; what follows is another picture or a film.

    Raises ValueError for a file that is cut off.
    """
    at = headers(data)[-1][2]
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == EOI:
            return at + 2
        if marker in (0x00, 0xFF) or marker in _BARE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ValueError("it is cut off")
