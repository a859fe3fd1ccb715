"""What a source says of camera, exposure, time, place and owner, under OpenEXR's standard names and in its units.

Names and units: OpenEXR, "Standard Attributes". EXIF: CIPA DC-008. What EXIF does not say, XMP may.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import Image

Metadata = dict[str, str | float]

_MOST_XMP = 2**20  # bytes that are read
_EXIF, _GPS = 0x8769, 0x8825


def of_still(image: Image.Image) -> Metadata:
    """Of a picture as Pillow has opened it. What makes no sense is left out."""
    return of_exif(image.getexif(), image.info.get("xmp"))


def of_exif(exif: Image.Exif, xmp: bytes | None) -> Metadata:
    """As `of_still`, of what a picture carries."""
    found = _of_tags({**_xmp(xmp), **_tags(exif)})
    return {**found, **_place(exif.get_ifd(_GPS))}


def of_clip(tags: Mapping[str, str]) -> Metadata:
    """Of the tags of a container, as FFmpeg names them."""
    apple = {name.removeprefix("com.apple.quicktime."): value for name, value in tags.items()}
    named = {
        "Make": apple.get("make"),
        "Model": apple.get("model"),
        "DateTimeOriginal": apple.get("creationdate") or apple.get("creation_time"),
        "Copyright": apple.get("copyright"),
        "Artist": apple.get("artist"),
        "ImageDescription": apple.get("description") or apple.get("comment"),
    }
    found = _of_tags({name: value for name, value in named.items() if value})
    where = re.match(r"([+-]\d+\.?\d*)([+-]\d+\.?\d*)([+-]\d+\.?\d*)?", apple.get("location.ISO6709", ""))  # ISO 6709
    for name, value in zip(("latitude", "longitude", "altitude"), where.groups() if where else (), strict=False):
        if value is not None:
            found[name] = float(value)
    return found


def _of_tags(tags: Mapping[str, Any]) -> Metadata:
    """By EXIF's names."""
    found: Metadata = {}
    for name, (sources, read) in _ATTRIBUTES.items():
        value = next((value for source in sources if (value := read(tags.get(source))) is not None), None)
        if value is not None:
            found[name] = value
    time = next((str(tags[name]) for name in ("DateTimeOriginal", "DateTimeDigitized") if name in tags), "")
    date = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[T ](\d\d):(\d\d)(?::(\d\d))?(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?", time)
    if date and date[1] not in ("0000", "1904"):  # a clock that was never set
        found["capDate"] = f"{date[1]}:{date[2]}:{date[3]} {date[4]}:{date[5]}:{date[6] or '00'}"
        zone = re.fullmatch(
            r"(Z)|([+-])(\d\d):?(\d\d)", str(date[7] or tags.get("OffsetTimeOriginal", "")).strip("\0 ")
        )
        if zone:
            east = 0 if zone[1] else (int(zone[3]) * 3600 + int(zone[4]) * 60) * (-1 if zone[2] == "-" else 1)
            found["utcOffset"] = float(-east)  # UTC is local time plus this
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):  # UserComment: eight bytes name the character set
        value = value[8:].decode("utf-8", "replace") if value.startswith((b"ASCII\0\0\0", bytes(8))) else ""
    text = str(value or "").split("\0")[0].strip()
    return text.encode("utf-8", "replace").decode() or None


def _number(value: Any) -> float | None:
    """Positive and finite: 0 and 0/0 stand for "unknown"."""
    try:
        if isinstance(value, tuple | list):
            value = value[0]
        above, _, below = str(value).partition("/")  # XMP writes 1/250
        number = float(above) / float(below or 1)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


_ATTRIBUTES: dict[str, tuple[tuple[str, ...], Callable[[Any], str | float | None]]] = {
    "cameraMake": (("Make",), _text),
    "cameraModel": (("Model",), _text),
    "cameraSerialNumber": (("BodySerialNumber",), _text),
    "lensMake": (("LensMake",), _text),
    "lensModel": (("LensModel", "Lens"), _text),
    "lensSerialNumber": (("LensSerialNumber",), _text),
    "expTime": (("ExposureTime",), _number),  # seconds
    "aperture": (("FNumber",), _number),  # f-number
    "isoSpeed": (("PhotographicSensitivity", "ISOSpeedRatings"), _number),
    "nominalFocalLength": (("FocalLength",), _number),  # millimetres
    "focus": (("SubjectDistance",), _number),  # metres
    "owner": (("Copyright", "rights", "Artist", "creator", "CameraOwnerName"), _text),
    "comments": (("ImageDescription", "description", "UserComment"), _text),
}
"""OpenEXR's names, by the tags that may hold each, the first that does; copyright is the owner's, as in OpenImageIO."""


def _tags(exif: Image.Exif) -> dict[str, Any]:
    from PIL.ExifTags import TAGS

    both = {**exif, **exif.get_ifd(_EXIF)}
    return {TAGS[number]: value for number, value in both.items() if number in TAGS and value not in (None, "", b"")}


def _place(gps: Mapping[int, Any]) -> Metadata:
    """Degrees east and north, metres above sea level."""
    found: Metadata = {}
    for name, tag, negative in (("latitude", 2, "S"), ("longitude", 4, "W")):
        try:
            degrees, minutes, seconds = (float(value) for value in gps[tag])
            value = degrees + minutes / 60 + seconds / 3600
            if math.isfinite(value) and abs(value) <= 180:
                found[name] = -value if str(gps.get(tag - 1, "")).upper().startswith(negative) else value
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
    try:
        height = float(gps[6])
        if math.isfinite(height):
            found["altitude"] = -height if gps.get(5) in (1, b"\x01") else height
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        pass
    return found


def _xmp(packet: Any) -> dict[str, str]:
    """The simple properties of an XMP packet, and the first entry of its lists, by their names without a namespace."""
    data = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(data, bytes) or len(data) > _MOST_XMP or b"<!" in data:  # no entities, which may explode
        return {}
    try:
        root = ElementTree.fromstring(data.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError):
        return {}
    return {name: text.strip() for name, text in _properties(root) if text and text.strip()}


def _properties(root: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    for node in root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"):
        for name, text in node.attrib.items():
            yield name.rpartition("}")[2], text
        for child in node:
            entry = next((one for one in child.iter() if one.text and one.text.strip()), None)
            yield child.tag.rpartition("}")[2], None if entry is None else entry.text
