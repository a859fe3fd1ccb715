"""Gain maps: the second, small picture by which a photograph says how much brighter than its base it was.

Three kinds are read: ISO 21496-1 (2025), in JPEGs of several pictures (CIPA DC-007, "MPF") and in HEIF and AVIF (see
`heif_items`); Google's Ultra HDR (Ultra HDR Image Format v1.1; Adobe's Gain Map 1.0) in such JPEGs; and Apple's
("Applying Apple HDR effect to your photos", Apple developer documentation) in JPEG and HEIC.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ldr2hdr_cli.media.jpeg import APP1, APP2, ISO, MPF, XMP, headers
from model.exposure import linearise

APPLE = "urn:com:apple:photo:2020:aux:hdrgainmap"
_HDRGM = "{http://ns.adobe.com/hdr-gain-map/1.0/}"
_APPLE_MAP = "{http://ns.apple.com/HDRGainMap/1.0/}"
_RDF_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
_DARK = 1 / 512  # linear; below it an offset is not made a factor, which would grow without bounds

Channels = tuple[float, ...]
"""One value, or one for each of red, green and blue."""


@dataclass(frozen=True)
class GainMap:
    """log2 gain = low + (high − low) · codes^(1/gamma); light = (base + base_offset) · gain − offset, linear.

    codes: float32 h×w×1 or h×w×3 in [0, 1], smaller than the base as a rule.
    """

    name: str
    codes: np.ndarray
    low: Channels
    high: Channels
    gamma: Channels = (1.0,)
    base_offset: Channels = (0.0,)
    offset: Channels = (0.0,)

    @property
    def most(self) -> Channels:
        """The largest linear factor at white: one value, or three."""
        values = (1 + np.array(self.base_offset)) * 2.0 ** np.array(self.high) - np.array(self.offset)
        return tuple(float(value) for value in values)

    def factor(self, base: np.ndarray) -> np.ndarray:
        """By how much the light is brighter than the base, float32 H×W×1 or H×W×3, ≥ 0.

        base: linear, H×W×3 in [0, 1].
        """
        import cv2

        height, width = base.shape[:2]
        codes = cv2.resize(self.codes, (width, height), interpolation=cv2.INTER_LINEAR)
        codes = codes.reshape(height, width, -1)
        low, high, gamma, base_offset, offset = (
            np.array(values, np.float32) for values in (self.low, self.high, self.gamma, self.base_offset, self.offset)
        )
        gain = np.exp2(low + (high - low) * codes ** (1 / gamma))
        if base_offset.any() or offset.any():
            base = np.maximum(base, np.float32(_DARK))
            gain = np.maximum(((base + base_offset) * gain - offset) / base, 0)
        return gain


def in_jpeg(data: bytes, exif: Any) -> GainMap | None:
    """Of a JPEG file; None where it has none, or one that says nothing. exif: Pillow's, of the base.

    Raises ValueError for one that is damaged.
    """
    for picture in _other_pictures(data):
        xmp = iso = b""
        for marker, start, stop in headers(picture):
            payload = picture[start + 4 : stop]
            if marker == APP1 and payload.startswith(XMP):
                xmp = payload[len(XMP) :]
            elif marker == APP2 and payload.startswith(ISO):
                iso = payload[len(ISO) :]
        values = _elements(xmp)
        if len(iso) > 4:
            found = standard(iso, decoded(picture))
        elif f"{_HDRGM}GainMapMax" in values:
            found = _adobe(values, picture)
        elif APPLE in xmp.decode("utf-8", "replace") or f"{_APPLE_MAP}HDRGainMapVersion" in values:
            found = apple(decoded(picture)[..., 0], xmp, exif)
        else:
            continue
        return found if found and max(found.high) > 0 else None
    return None


def apple(codes: np.ndarray, xmp: bytes, exif: Any) -> GainMap | None:
    """Apple's: light = base · (1 + (headroom − 1) · map), the map encoded as BT.709. None without a headroom.

    codes: uint8 or float32 h×w. xmp: of the map, which newer phones write the headroom into. exif: of the base, whose
    maker note older ones do.
    """
    headroom = float(_elements(xmp).get(f"{_APPLE_MAP}HDRGainMapHeadroom", ["0"])[0]) or _maker_headroom(exif)
    if headroom <= 1:
        return None
    values = codes.astype(np.float32) / np.float32(255) if codes.dtype == np.uint8 else codes
    stops = np.log2(1 + (headroom - 1) * linearise(values, "bt709")) / np.log2(headroom)
    return GainMap("Apple HDR", stops[..., None].astype(np.float32), (0.0,), (float(np.log2(headroom)),))


def _maker_headroom(exif: Any) -> float:
    """From two numbers of Apple's maker note, as Apple's documentation computes it; 0 where they are not there."""
    note = exif.get_ifd(0x8769).get(0x927C) if exif is not None else None
    if not isinstance(note, bytes) or not note.startswith(b"Apple iOS\0"):
        return 0.0
    tags = dict(_ratios(note))
    if 33 not in tags or 48 not in tags:
        return 0.0
    if tags[33] < 1:
        stops = 1.8 - 20 * tags[48] if tags[48] <= 0.01 else 1.601 - 0.101 * tags[48]
    else:
        stops = 3 - 70 * tags[48] if tags[48] <= 0.01 else 2.303 - 0.303 * tags[48]
    return float(2 ** max(stops, 0))


def _ratios(note: bytes) -> Iterator[tuple[int, float]]:
    """The signed rationals of Apple's maker note, a big-endian IFD behind 14 bytes."""
    (count,) = struct.unpack_from(">H", note, 14)
    for at in range(16, min(16 + 12 * count, len(note) - 11), 12):
        tag, kind, _, where = struct.unpack_from(">HHII", note, at)
        if kind == 10 and where + 8 <= len(note):
            above, below = struct.unpack_from(">ii", note, where)
            yield tag, above / below if below else 0.0


def standard(payload: bytes, codes: np.ndarray) -> GainMap | None:
    """ISO 21496-1, annex C.2: versions, flags, two headrooms, and five fractions for each channel.

    codes: the map, float32 h×w×(1 or 3) in [0, 1]. None for one that goes the other way, from an HDR base.
    """
    least_version, _, flags = struct.unpack_from(">HHB", payload)
    if least_version > 0:
        return None  # written for readers of another version
    channels = 3 if flags & 0x80 else 1
    base_headroom = _fraction(payload, 5, ">I")
    if base_headroom > 0:
        return None  # the base is the HDR rendition
    fields: list[list[float]] = [[], [], [], [], []]
    for channel in range(channels):
        start = 21 + 40 * channel
        for place, (field, form) in enumerate(zip(fields, (">i", ">i", ">I", ">i", ">i"), strict=True)):
            field.append(_fraction(payload, start + 8 * place, form))
    low, high, gamma, base_offset, offset = map(tuple, fields)
    return GainMap("ISO 21496-1", _channels(codes, channels), low, high, gamma, base_offset, offset)


def _fraction(payload: bytes, at: int, form: str) -> float:
    (above,), (below,) = struct.unpack_from(form, payload, at), struct.unpack_from(">I", payload, at + 4)
    if not below:
        raise ValueError("its gain map has a fraction over 0")
    return float(above / below)


def _adobe(values: dict[str, list[str]], picture: bytes) -> GainMap | None:
    """The attributes under hdrgm:, with the defaults of the specification."""

    def numbers(name: str, default: float) -> Channels:
        return tuple(float(text) for text in values.get(_HDRGM + name, [str(default)]))

    if values.get(f"{_HDRGM}BaseRenditionIsHDR", [""])[0].lower() == "true":
        return None
    low, high, gamma = numbers("GainMapMin", 0), numbers("GainMapMax", 1), numbers("Gamma", 1)
    offsets = numbers("OffsetSDR", 1 / 64), numbers("OffsetHDR", 1 / 64)
    return GainMap("Ultra HDR", decoded(picture), low, high, gamma, *offsets)


def _channels(codes: np.ndarray, wanted: int) -> np.ndarray:
    """With one channel where the three are the same by definition."""
    return codes[..., :1] if wanted == 1 else codes


def decoded(jpeg: bytes) -> np.ndarray:
    """float32 h×w×(1 or 3) in [0, 1], RGB."""
    with Image.open(io.BytesIO(jpeg)) as image:  # which says where one is cut off, and OpenCV may not
        codes = np.asarray(image if image.mode == "L" else image.convert("RGB"), np.float32) / np.float32(255)
    return codes[..., None] if codes.ndim == 2 else codes


def _elements(xmp: bytes) -> dict[str, list[str]]:
    """Each attribute and element of an XMP packet by its {namespace}name, with its text or its list of texts."""
    if not xmp.strip():
        return {}
    begin, end = xmp.find(b"<"), xmp.rfind(b">") + 1
    try:
        root = ElementTree.fromstring(xmp[begin:end].replace(b"\0", b""))
    except ElementTree.ParseError:
        return {}
    found: dict[str, list[str]] = {}
    for element in root.iter():
        found.update({name: [value] for name, value in element.attrib.items()})
        items = [item.text or "" for item in element.iter(_RDF_ITEM)]
        if items or (element.text or "").strip():
            found[element.tag] = items or [(element.text or "").strip()]
    return found


def _other_pictures(data: bytes) -> Iterator[bytes]:
    """The JPEGs behind the first one, which the index of CIPA DC-007 (5.2.3) lists; nothing where there is none."""
    at = data.find(MPF, 0, 1 << 20)
    if at < 0:
        return
    base = at + len(MPF)  # offsets count from the byte order mark
    order = {b"MM": ">", b"II": "<"}.get(data[base : base + 2], "")
    if not order:
        return
    (ifd,) = struct.unpack_from(f"{order}I", data, base + 4)
    (count,) = struct.unpack_from(f"{order}H", data, base + ifd)
    for place in range(base + ifd + 2, base + ifd + 2 + 12 * count, 12):
        tag, _, size, where = struct.unpack_from(f"{order}HHII", data, place)
        if tag != 0xB002:  # MP Entry
            continue
        for entry in range(base + where + 16, base + where + size, 16):
            _, length, offset = struct.unpack_from(f"{order}III", data, entry)
            picture = data[base + offset : base + offset + length]
            if offset and picture.startswith(b"\xff\xd8"):
                yield picture
