"""What is written: scene-linear pixels and their attributes, as OpenEXR."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import OpenEXR

from model import __version__
from model.atomic import write_atomically
from model.errors import Ldr2hdrError

SOFTWARE = f"ldr2hdr {__version__}"
PREFIX = "ldr2hdr/"
# A layer of its own, and Y, a single value by OpenEXR's conventions. Not A: where a file has no other A, OpenImageIO
# takes that of any layer for the alpha of R, G and B, and divides by it.
MADE_UP = "reconstructed.Y"
HALF_MAX = 65504.0  # largest finite IEEE 754 binary16
MAX_VALUES = 2**30  # that are read of one file: 2^28 pixels with R, G, B and A
_COMPRESSION = {
    "zip": OpenEXR.ZIP_COMPRESSION,
    "zips": OpenEXR.ZIPS_COMPRESSION,
    "piz": OpenEXR.PIZ_COMPRESSION,
    "pxr24": OpenEXR.PXR24_COMPRESSION,
    "b44": OpenEXR.B44_COMPRESSION,
    "dwaa": OpenEXR.DWAA_COMPRESSION,
    "dwab": OpenEXR.DWAB_COMPRESSION,
    "rle": OpenEXR.RLE_COMPRESSION,
    "none": OpenEXR.NO_COMPRESSION,
}
COMPRESSIONS = tuple(_COMPRESSION)


def write_exr(
    path: Path,
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    attributes: Mapping[str, Any] = {},
    *,
    half: bool = True,
    compression: str = "zip",
    dwa_level: float = 45.0,
    premultiply: bool = True,
    made_up: np.ndarray | None = None,
) -> int:
    """Write one scanline EXR with the channels R, G, B and, with `alpha`, A; atomically.

    pixels: H×W×3 float32, or float16 with `half`, linear, LDR white = 1.0, not multiplied by alpha. alpha: H×W float32
    in [0, 1] or None. premultiply: write colour times alpha, the convention of EXR (OpenEXR, "Technical Introduction",
    RGB and alpha); the attribute `ldr2hdr/alpha` says which. made_up: H×W float32, 1 − M of eq. 1, as the channel
    MADE_UP.
    attributes: header entries as OpenEXR's Python types, see `frame_attributes`.
    half: 16-bit float channels, values beyond ±65504 clamped; otherwise 32-bit, nothing clamped.
    dwa_level: the loss that dwaa and dwab accept, 45 as in OpenEXR; larger is smaller and worse.

    Returns how many R, G, B values were clamped. The bytes depend on the arguments alone.
    Raises Ldr2hdrError where the file cannot be written, ValueError for a wrong shape or compression.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be H×W×3, not {pixels.shape}")
    for name, plane in (("alpha", alpha), ("made_up", made_up)):
        if plane is not None and plane.shape != pixels.shape[:2]:
            raise ValueError(f"{name} must be {pixels.shape[:2]}, not {plane.shape}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    header: dict[str, Any] = {"software": SOFTWARE, **attributes}
    if alpha is not None:
        header[PREFIX + "alpha"] = "premultiplied" if premultiply else "straight"
        pixels = pixels * alpha[..., None] if premultiply else pixels
    header["type"] = OpenEXR.scanlineimage
    header["compression"] = _COMPRESSION[compression]
    if compression in ("dwaa", "dwab"):
        header["dwaCompressionLevel"] = float(dwa_level)
    clamped = 0
    if half and pixels.dtype != np.float16:
        pixels, clamped = _to_half(pixels)
    if alpha is None:
        channels = {"RGB": np.ascontiguousarray(pixels)}
    else:
        channels = {"RGBA": np.dstack((pixels, alpha.astype(pixels.dtype)))}
    if made_up is not None:
        channels[MADE_UP] = np.ascontiguousarray(made_up, dtype=pixels.dtype)
    # In memory first: OpenEXR's own file writer loses the error of its last flush on a full disk.
    encoded = io.BytesIO()
    OpenEXR.File(header, channels).write(encoded)
    write_atomically(path, encoded.getbuffer())
    return clamped


def _to_half(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Round to nearest-even half; what lies beyond ±65504 (infinities too) is clamped and counted."""
    clamped = 0
    if pixels.max() > HALF_MAX or pixels.min() < -HALF_MAX:  # rare, and counting takes a second copy
        clamped = int(np.count_nonzero(np.abs(pixels) > HALF_MAX))
        pixels = np.clip(pixels, -HALF_MAX, HALF_MAX)
    return pixels.astype(np.float16), clamped


def read_exr(path: Path, max_values: int = MAX_VALUES) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Read the first part of an EXR: H×W×C float32, the channel names (R, G, B, A first), the attributes.

    Attributes are OpenEXR's Python values, without the channel list. Raises Ldr2hdrError for a file that is
    missing, damaged, deep, has subsampled channels, or holds more than `max_values`, of all its parts and channels.
    """
    planes, attributes = read_planes(path, max_values)
    return np.stack([plane.astype(np.float32, copy=False) for plane in planes.values()], -1), [*planes], attributes


def read_planes(path: Path, max_values: int = MAX_VALUES) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """As `read_exr`, each channel an H×W array in the type of the file: float16, float32 or uint32."""
    path = Path(path)
    if not path.is_file():
        raise Ldr2hdrError(f"{path} does not exist or is not a file; check the name.")
    try:
        # As a stream: OpenEXR itself opens no name that is not UTF-8.
        with path.open("rb") as stream:
            _check_size(path, stream, max_values)
            stream.seek(0)
            with OpenEXR.File(stream, separate_channels=True) as file:
                attributes = {name: value for name, value in file.header().items() if name != "channels"}
                planes = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, MemoryError) as error:
        raise Ldr2hdrError(f"{path} is damaged or is not OpenEXR; write it again.") from error
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be read ({error.strerror}).") from error
    # OpenEXR warns and goes on when a chunk is damaged; the channel then has no pixels.
    if not planes or any(getattr(plane, "shape", None) != _shape(attributes) for plane in planes.values()):
        raise Ldr2hdrError(
            f"{path} is damaged, or has deep or subsampled channels, which are not supported; write it again."
        )
    order = {name: place for place, name in enumerate("RGBA")}
    return {name: planes[name] for name in sorted(planes, key=lambda n: (order.get(n, 4), n))}, attributes


def _check_size(path: Path, stream: BinaryIO, most: int) -> None:
    """By the headers alone, of all parts, since OpenEXR decodes all: a few kilobytes can ask for gigabytes."""
    with OpenEXR.File(stream, header_only=True) as file:
        headers = [dict(part.header) for part in file.parts]  # emptied when the file is closed
    if any(header.get("type") in (OpenEXR.deepscanline, OpenEXR.deeptile) for header in headers):
        raise Ldr2hdrError(f"{path} has deep channels, which are not supported; flatten it first.")
    values = sum(math.prod(_shape(header)) * len(header["channels"]) for header in headers)
    if values > most:
        largest = max(headers, key=lambda header: math.prod(_shape(header)) * len(header["channels"]))
        height, width = _shape(largest)
        raise Ldr2hdrError(
            f"{path} has {values} values in its channels, more than the {most} allowed (its largest part has "
            f"{width}×{height} pixels of {len(largest['channels'])} samples); write it smaller."
        )


def _shape(header: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the data window."""
    low, high = header["dataWindow"]
    return int(high[1]) - int(low[1]) + 1, int(high[0]) - int(low[0]) + 1


def parse_timecode(text: str) -> OpenEXR.TimeCode | None:
    """SMPTE 12M text as an EXR time code; `;` (or `.`) before the frames means drop-frame.

    Returns None for text that is not a time code or that EXR's field cannot hold (frames above 59).
    """
    match = re.fullmatch(r"(\d{1,2}):(\d{2}):(\d{2})([:;.])(\d{2,3})", text.strip())
    if match is None:
        return None
    hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
    if hours > 23 or minutes > 59 or seconds > 59 or frame > 59:
        return None
    drop_frame = int(match[4] != ":")
    # Then colour frame, field phase, three binary group flags and eight binary groups: none of them known.
    return OpenEXR.TimeCode(hours, minutes, seconds, frame, drop_frame, *([0] * 13))


def frame_attributes(
    *,
    labels: Mapping[str, Any],
    frame_rate: Fraction | None,
    timecode: str | None,
    pixel_aspect: float,
    source: str,
    frame_number: int | None,
    weights_sha256: str,
    settings: Mapping[str, str],
    seconds: float | None = None,
    metadata: Mapping[str, str | float] = {},
) -> dict[str, Any]:
    """The header entries of one frame, ready for `write_exr`.

    labels: `chromaticities`, CIE xy of red, green, blue and white, and what else says the colour. frame_rate: frames a
    second, None for a still.
    timecode: of this frame, `HH:MM:SS:FF`, `;` before the frames for drop-frame; text that EXR's field cannot
    hold is kept as `ldr2hdr/timecode`. pixel_aspect: width by height of a pixel. source: the input; only its
    file name is kept. seconds: the frame's time stamp. settings: kept as one JSON object with sorted keys.
    metadata: of the camera, see `media.metadata`.

    Standard names and types are those of OpenEXR's "Standard Attributes"; ours have the prefix `ldr2hdr/`.
    """
    attributes: dict[str, Any] = {
        **metadata,
        **labels,
        "software": SOFTWARE,
        "pixelAspectRatio": float(pixel_aspect),
        PREFIX + "version": __version__,
        PREFIX + "weights": weights_sha256,
        # A name on disk need not be UTF-8, and EXR's strings must be.
        PREFIX + "source": os.fsencode(Path(source).name).decode("utf-8", "backslashreplace"),
        PREFIX + "settings": json.dumps(dict(settings), sort_keys=True, ensure_ascii=False),
    }
    if frame_rate is not None:
        attributes["framesPerSecond"] = Fraction(frame_rate).limit_denominator(100_000)
    if timecode is not None:
        if (code := parse_timecode(timecode)) is not None:
            attributes["timeCode"] = code
        else:
            attributes[PREFIX + "timecode"] = timecode
    if frame_number is not None:
        # As text: the number in `img_20240101123456.jpg` is more than EXR's int attribute holds.
        attributes[PREFIX + "frame"] = str(frame_number)
    if seconds is not None:
        # As text: EXR's float attribute has 24 bits, a quarter of a millisecond after one hour.
        attributes[PREFIX + "seconds"] = f"{seconds:.6f}"
    return attributes
