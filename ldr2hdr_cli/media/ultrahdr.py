"""Ultra HDR: the photograph's own JPEG, untouched, with a gain map behind it that a bright display multiplies it by.

One file for every reader: ISO 21496-1 binary metadata, and Google's "Ultra HDR Image Format v1.1" (XMP `hdrgm` and a
container directory), both found by CIPA DC-007's multi-picture index. Whoever knows none of them sees the JPEG.
"""

import contextlib
import io
import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ldr2hdr_cli.media.colour import REC709, Chromaticities, conversion
from ldr2hdr_cli.media.display_light import DisplayLight
from ldr2hdr_cli.media.exr import PREFIX
from ldr2hdr_cli.media.jpeg import (
    APP0,
    APP1,
    APP2,
    COM,
    ISO,
    LARGEST,
    MPF,
    XMP,
    Place,
    end_of_first,
    headers,
    segment,
)
from ldr2hdr_cli.media.orientation import as_stored
from model.atomic import write_atomically
from model.errors import Ldr2hdrError
from model.exposure import Encoding, encode, linearise

OFFSET = Fraction(1, 64)  # added to both pictures before they are divided, so that black has a gain; Ultra HDR v1.1
_SPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
}
_ORIENTATION, _EXIF_IFD, _GPS_IFD, _MAKER_NOTE = 0x0112, 0x8769, 0x8825, 0x927C
# ImageDescription, Make, Model, Software, DateTime, Artist, Copyright (CIPA DC-008, 4.6.4)
_SAYS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


@dataclass(frozen=True)
class GainMap:
    """A gain map and what its codes mean, the same for the three channels.

    codes: uint8 H×W×3, in the base picture's rows. low, high: log2 of the gains of codes 0 and 255. headroom: log2 of
    how much brighter than its white a display must be to show all of it.
    """

    codes: np.ndarray
    low: float
    high: float
    headroom: float


def write_ultrahdr(
    path: Path,
    pixels: np.ndarray,
    source: Path,
    attributes: Mapping[str, Any] = {},
    *,
    ldr: np.ndarray | None = None,
    light: DisplayLight = DisplayLight(),
    encoding: Encoding = Encoding("srgb"),
    chromaticities: Chromaticities = REC709,
    quality: int = 95,
) -> None:
    """Write a photograph and its reconstruction as one Ultra HDR JPEG, atomically.

    pixels: H×W×3 float32, linear, LDR white = 1.0, upright. source: a JPEG, whose bytes become the base picture, EXIF
    and ICC profile with it; what stood behind its end, and an earlier gain map, is left out. Another picture, or one in
    grey, becomes a JPEG in sRGB first, of `ldr`, H×W×3 in [0, 1], upright. attributes: those under our prefix are kept
    as a comment. encoding, chromaticities: of source, `ldr` and `pixels`. quality: of the map's JPEG, 1 to 100.

    The gain is that from the decoded base to `light`'s picture, white taken as 1. Raises Ldr2hdrError for a source that
    cannot be a base, and where the file cannot be written.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be H×W×3, not {pixels.shape}")
    own, kept = _own_base(source)
    matrix = None
    if own is not None:
        base, seen, orientation = own
    elif ldr is not None:
        matrix = np.array(conversion(chromaticities, REC709) or np.eye(3))
        linear = light.nits(linearise(ldr, encoding.transfer, encoding.gamma), matrix) / np.float32(light.white)
        base, seen, orientation = _made_base(encode(np.minimum(linear, 1), "srgb"), kept)
        encoding = Encoding("srgb")
    else:
        raise ValueError(f"{source} is not a JPEG in colour, so ldr must be given")
    shown = as_stored(light.nits(pixels, matrix) / np.float32(light.white), orientation)
    if shown.shape != seen.shape:
        raise Ldr2hdrError(f"{source} has {seen.shape[1]}×{seen.shape[0]} pixels, its result has another size.")
    made = gain_map(linearise(seen, encoding.transfer, encoding.gamma), shown)
    write_atomically(path, container(base, made, quality, _comment(attributes)))


def gain_map(base: np.ndarray, shown: np.ndarray) -> GainMap:
    """ISO 21496-1, 5.2: log2((shown + k) / (base + k)), both H×W×3, linear, white = 1.

    A gain of 1 has a code of its own, so that what is the same in both pictures stays exactly the same.
    """
    offset = np.float32(OFFSET)
    gains = np.log2((shown + offset) / (base + offset))
    least, most = min(float(gains.min()), 0.0), max(float(gains.max()), 0.0)
    step = max((most - least) / 254, 1 / 1024)
    below = int(np.ceil(-least / step))
    codes = np.rint(gains / np.float32(step) + below).clip(0, 255).astype(np.uint8)
    headroom = max(float(np.log2(max(float(shown.max()), 1e-6))), 0.125)
    return GainMap(codes, -below * step, (255 - below) * step, headroom)


def container(base: bytes, made: GainMap, quality: int, comment: bytes = b"") -> bytes:
    """The bytes of the file: `base` with segments added among its headers, then the map's own JPEG."""
    second = _map_jpeg(made, quality, comment)
    head, end = headers(base), end_of_first(base)
    places = [start for marker, start, _ in head if not _is_early(base, marker, start)]
    at = places[0]
    extra = b"".join(segment(APP1, xmp) for xmp in _directory(base, head, len(second)))
    extra += segment(APP2, ISO + struct.pack(">HH", 0, 0))  # the versions alone: the metadata is in the map
    rest = [base[start:stop] for marker, start, stop in head if start >= at and not _is_replaced(base, marker, start)]
    # The index holds the sizes of both pictures and the second's distance from its own byte order mark.
    early = b"".join(base[start:stop] for marker, start, stop in head if start < at)
    before = base[:2] + early + extra
    size = len(before) + len(_index(0, 0, 0)) + sum(map(len, rest)) + end - head[-1][2]
    mark = len(before) + 4 + len(MPF)
    index = _index(size, len(second), size - mark)
    return before + index + b"".join(rest) + base[head[-1][2] : end] + second


_Base = tuple[bytes, np.ndarray, int]
"""A JPEG; what its decoders see, float32 H×W×3 in [0, 1], as stored; and its EXIF orientation."""


def _own_base(source: Path) -> tuple[_Base | None, Image.Exif | None]:
    """The source itself where it is a JPEG in colour, since Android's decoder puts a map on no other; and its EXIF."""
    try:
        with source.open("rb") as file:
            data = file.read() if file.read(3) == b"\xff\xd8\xff" and not file.seek(0) else b""
        with contextlib.suppress(UnidentifiedImageError), Image.open(source) as image:  # a clip is not Pillow's
            exif = image.getexif()
            if data and image.mode == "RGB":
                end_of_first(data)
                return (data, np.asarray(image).astype(np.float32) / 255, int(exif.get(_ORIENTATION, 1))), exif
            return None, exif
    except (OSError, SyntaxError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Ldr2hdrError(f"{source} cannot be the base of an Ultra HDR JPEG ({why}); use --format avif.") from None
    return None, None


def _made_base(srgb: np.ndarray, exif: Image.Exif | None) -> _Base:
    kept = _carried(exif) if exif else b""
    encoded = io.BytesIO()
    codes = np.rint(srgb * 255).clip(0, 255).astype(np.uint8)
    Image.fromarray(codes).save(encoded, "JPEG", quality=97, subsampling=0, **({"exif": kept} if kept else {}))
    with Image.open(encoded) as image:
        return encoded.getvalue(), np.asarray(image).astype(np.float32) / 255, 1


def _carried(exif: Image.Exif) -> bytes:
    """What EXIF says of camera, time and place, for a JPEG, or nothing where that does not fit into one.

    Not how a TIFF stores its pixels, nor its profile, its XMP and an editor's notes, nor the orientation, which is
    applied.
    """
    kept = Image.Exif()
    for tag in (tag for tag in _SAYS if tag in exif):
        kept[tag] = exif[tag]
    for ifd in (_EXIF_IFD, _GPS_IFD):
        if found := exif.get_ifd(ifd):
            kept.get_ifd(ifd).update(found)
    if len(kept.tobytes()) > LARGEST:
        kept.get_ifd(_EXIF_IFD).pop(_MAKER_NOTE, None)
    encoded = kept.tobytes()
    return encoded if len(encoded) <= LARGEST else b""


def _comment(attributes: Mapping[str, Any]) -> bytes:
    own = {name: str(value) for name, value in attributes.items() if name.startswith(PREFIX)}
    text = json.dumps(own, sort_keys=True).encode()
    return text if own and len(text) <= LARGEST else b""


def _map_jpeg(made: GainMap, quality: int, comment: bytes) -> bytes:
    """The map in JPEG, without subsampling, with the metadata in both forms in front."""
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", made.codes[..., ::-1], how)
    if not done:
        raise Ldr2hdrError("the gain map cannot be encoded as JPEG.")
    jpeg = data.tobytes()
    _, _, at = headers(jpeg)[0]  # behind JFIF's
    extra = segment(APP1, XMP + _map_xmp(made)) + segment(APP2, ISO + _map_metadata(made))
    return jpeg[:at] + extra + (segment(COM, comment) if comment else b"") + jpeg[at:]


def _map_metadata(made: GainMap) -> bytes:
    """ISO 21496-1, annex C: versions, flags, headrooms, then for each channel minimum, maximum, gamma and offsets."""
    flags = 0x80 | 0x40  # three channels; gains apply in the base's primaries
    channel = b"".join(map(_signed, (made.low, made.high))) + _unsigned(1) + 2 * _signed(OFFSET)
    return struct.pack(">HHB", 0, 0, flags) + _unsigned(0) + _unsigned(made.headroom) + 3 * channel


def _signed(value: float | Fraction) -> bytes:
    exact = Fraction(value).limit_denominator(1 << 20)
    return struct.pack(">iI", exact.numerator, exact.denominator)


def _unsigned(value: float | Fraction) -> bytes:
    exact = Fraction(value).limit_denominator(1 << 20)
    return struct.pack(">II", exact.numerator, exact.denominator)


def _map_xmp(made: GainMap) -> bytes:
    values = {
        "Version": "1.0",
        "GainMapMin": f"{made.low:.7g}",
        "GainMapMax": f"{made.high:.7g}",
        "Gamma": "1",
        "OffsetSDR": f"{float(OFFSET):.7g}",
        "OffsetHDR": f"{float(OFFSET):.7g}",
        "HDRCapacityMin": "0",
        "HDRCapacityMax": f"{made.headroom:.7g}",
        "BaseRenditionIsHDR": "False",
    }
    written = " ".join(f'hdrgm:{name}="{value}"' for name, value in values.items())
    return _packet(f'<rdf:Description rdf:about="" xmlns:hdrgm="{_SPACES["hdrgm"]}" {written}/>')


def _directory(base: bytes, head: list[Place], length: int) -> Iterator[bytes]:
    """The base's XMP packet with the directory of both pictures in it; as it was where both do not fit."""
    item = '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{}" Item:Mime="image/jpeg"{}/></rdf:li>'
    spaces = "".join(f' xmlns:{name}="{_SPACES[name]}"' for name in ("hdrgm", "Container", "Item"))
    description = (
        f'<rdf:Description rdf:about=""{spaces} hdrgm:Version="1.0"><Container:Directory><rdf:Seq>'
        + item.format("Primary", "")
        + item.format("GainMap", f' Item:Length="{length}"')
        + "</rdf:Seq></Container:Directory></rdf:Description>"
    )
    found = [base[start + 4 + len(XMP) : stop] for marker, start, stop in head if _is_xmp(base, marker, start)]
    merged = XMP + (_merged(found[0], description) if found else _packet(description))
    yield merged if len(merged) <= LARGEST else XMP + found[0]


def _merged(packet: bytes, description: str) -> bytes:
    """An XMP packet with one description more, and without an earlier gain map's."""
    try:
        for _, (prefix, space) in ET.iterparse(io.BytesIO(packet.strip(b"\0 \r\n")), ["start-ns"]):
            if not re.fullmatch(r"ns\d+|xml|", prefix):
                ET.register_namespace(prefix, space)
        tree = ET.fromstring(packet.strip(b"\0 \r\n"))
        where = tree if tree.tag == f"{{{_SPACES['rdf']}}}RDF" else tree.find(f"{{{_SPACES['rdf']}}}RDF")
    except (ET.ParseError, ValueError):
        where = None
    if where is None:  # not XMP as it should be
        return _packet(description)
    earlier = tuple(f"{{{_SPACES[name]}}}" for name in ("hdrgm", "Container"))
    for one in where:
        for name in [name for name in one.attrib if name.startswith(earlier)]:
            del one.attrib[name]
        for child in [child for child in one if child.tag.startswith(earlier)]:
            one.remove(child)
    text = "".join(
        ET.tostring(one, "unicode") for one in where if len(one) or len(one.attrib) > 1
    )  # more than about=""
    return _packet(text + description)


def _packet(descriptions: str) -> bytes:
    rdf = f'<rdf:RDF xmlns:rdf="{_SPACES["rdf"]}">{descriptions}</rdf:RDF>'
    return f'<x:xmpmeta xmlns:x="{_SPACES["x"]}">{rdf}</x:xmpmeta>'.encode()


def _index(first: int, second: int, distance: int) -> bytes:
    """CIPA DC-007-2009, 5.2: a TIFF structure with the sizes and places of two pictures; the first is the primary."""
    tiff = struct.pack(">2sHIH", b"MM", 42, 8, 3)
    tiff += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")
    tiff += struct.pack(">HHII", 0xB001, 4, 1, 2)
    tiff += struct.pack(">HHIII", 0xB002, 7, 32, 50, 0)  # the entries' place, then no further directory
    tiff += struct.pack(">IIIHH", 0x030000, first, 0, 0, 0) + struct.pack(">IIIHH", 0, second, distance, 0, 0)
    return segment(APP2, MPF + tiff)


def _is_early(data: bytes, marker: int, start: int) -> bool:
    """JFIF's and EXIF's segments come first by their standards."""
    return marker == APP0 or (marker == APP1 and data[start + 4 : start + 8] == b"Exif")


def _is_xmp(data: bytes, marker: int, start: int) -> bool:
    return marker == APP1 and data.startswith(XMP, start + 4)


def _is_replaced(data: bytes, marker: int, start: int) -> bool:
    """What is written anew."""
    return _is_xmp(data, marker, start) or (
        marker == APP2 and (data.startswith(MPF, start + 4) or data.startswith(ISO, start + 4))
    )
