"""MaxCLL, MaxFALL and the mastering display's colour volume inside coded pictures, where PyAV cannot put them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

MIN_LUMINANCE = 0.0001  # cd/m²; black is 0, and a decoder takes 0 for unknown


@dataclass(frozen=True)
class LightLevels:
    """peak: cd/m², of the display that the film was made for. chromaticities: of what it shows, CIE xy of red, green,
    blue and white (SMPTE ST 2086). max_cll, max_fall: cd/m² of the brightest pixel and of the brightest frame on
    average (CTA-861.3, annex P).
    """

    peak: float
    chromaticities: tuple[float, ...]
    max_cll: int
    max_fall: int

    def mastering_display(self) -> bytes:
        """24 bytes as in H.265's SEI (D.2.28) and ISO 14496-12's box `mdcv`: green, blue, red, white, luminances."""
        red, green, blue, white = (self.chromaticities[index : index + 2] for index in (0, 2, 4, 6))
        xy = [round(value * 50_000) for pair in (green, blue, red, white) for value in pair]
        return struct.pack(">8H2I", *xy, round(self.peak * 10_000), round(MIN_LUMINANCE * 10_000))

    def content(self) -> bytes:
        """4 bytes as in H.265's SEI (D.2.35), ISO 14496-12's box `clli` and AV1's metadata (5.8.3)."""
        return struct.pack(">2H", self.max_cll, self.max_fall)


def mark(packet: Any, codec: str, levels: LightLevels) -> Any:
    """A key frame's packet from an MP4, in HEVC or AV1, with the levels in front of its picture."""
    made = av.Packet((_in_hevc if codec == "hevc" else _in_av1)(bytes(packet), levels))
    made.is_keyframe = True
    return made


def _in_hevc(data: bytes, levels: LightLevels) -> bytes:
    """One SEI unit (ITU-T H.265, 7.3.2.4) before the first slice. Units have their length in front, in 4 bytes."""
    messages = bytes([137, 24]) + levels.mastering_display() + bytes([144, 4]) + levels.content() + b"\x80"
    unit = bytes([39 << 1, 1]) + _escaped(messages)  # a prefix SEI of layer 0
    at = next((start for start, kind in _units(data) if kind < 32), len(data))  # 32 and up are no slices
    return data[:at] + struct.pack(">I", len(unit)) + unit + data[at:]


def _units(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each NAL unit starts, and its type."""
    at = 0
    while at + 5 <= len(data):
        yield at, data[at + 4] >> 1 & 0x3F
        at += 4 + int.from_bytes(data[at : at + 4])


def _escaped(payload: bytes) -> bytes:
    """Two zeros and a byte up to 3 would look like a start code (ITU-T H.265, 7.4.2)."""
    made, zeros = bytearray(), 0
    for byte in payload:
        if zeros == 2 and byte <= 3:
            made.append(3)
            zeros = 0
        made.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(made)


def _in_av1(data: bytes, levels: LightLevels) -> bytes:
    """Two metadata OBUs (AV1, 5.8) behind the sequence header."""
    red, green, blue, white = (levels.chromaticities[index : index + 2] for index in (0, 2, 4, 6))
    xy = [round(value * 2**16) for pair in (red, green, blue, white) for value in pair]
    volume = struct.pack(">8H2I", *xy, round(levels.peak * 2**8), round(Fraction(MIN_LUMINANCE) * 2**14))
    made = b"".join(
        bytes([5 << 3 | 2, len(payload)]) + payload  # of type 5, with its size
        for payload in (b"\x01" + levels.content() + b"\x80", b"\x02" + volume + b"\x80")
    )
    at = next((stop for kind, stop in _obus(data) if kind == 1), 0)
    return data[:at] + made + data[at:]


def _obus(data: bytes) -> Iterator[tuple[int, int]]:
    """The type of each OBU that has a size, and where it stops."""
    at = 0
    while at < len(data):
        header = data[at]
        at += 2 if header & 4 else 1
        size = shift = 0
        while True:  # leb128
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        at += size
        yield header >> 3 & 15, at
