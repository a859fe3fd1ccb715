"""Radiance `.hdr` (RGBE, 8 bits a channel and a shared exponent), read and written; for people without EXR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldr2hdr_cli.media.exr import PREFIX, SOFTWARE
from ldr2hdr_cli.media.limits import MAX_PIXELS
from model.atomic import write_atomically
from model.errors import Ldr2hdrError

_RGBE_MAX = 1e38  # below 2^127, the largest that the shared exponent holds
# Magic, variables and comments, an empty line, the size (Ward, "The RADIANCE Picture File Format"). Upright ones alone.
_HEADER = re.compile(rb"#\?[^\n]*\n((?:[^\n]+\n)*)\n-Y ([1-9][0-9]{0,8}) \+X ([1-9][0-9]{0,8})\n")
_LONGEST_HEADER = 2**20  # bytes


def write_radiance(path: Path, pixels: np.ndarray, attributes: Mapping[str, Any]) -> None:
    """Write H×W×3 float32 linear pixels as run-length coded RGBE, atomically.

    The format holds no negative values and no NaN: both become 0. It has one exponent a pixel, so a channel is
    exact to 1/256 of the pixel's brightest. attributes: as for `exr.write_exr`; chromaticities and pixel aspect become
    PRIMARIES and PIXASPECT (Radiance counts height by width), ours become comments (Ward, "The RADIANCE Picture
    File Format"). Raises Ldr2hdrError where the file cannot be written.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be H×W×3, not {pixels.shape}")
    clean = np.clip(np.nan_to_num(pixels, nan=0.0, posinf=_RGBE_MAX), 0.0, _RGBE_MAX).astype(np.float32)
    import imagecodecs  # not OpenCV, which would encode into a file in /tmp

    height, width = clean.shape[:2]
    lines = ["#?RADIANCE", *_header_lines(attributes), "FORMAT=32-bit_rle_rgbe", "", f"-Y {height} +X {width}", ""]
    room = 5 * height * (width + 1)  # the most that run lengths can make of four bytes a pixel
    codes = imagecodecs.rgbe_encode(np.ascontiguousarray(clean), header=False, rle=True, out=room)
    write_atomically(path, "\n".join(lines).encode() + codes)


def _header_lines(attributes: Mapping[str, Any]) -> list[str]:
    lines = [f"SOFTWARE={SOFTWARE}"]
    if "chromaticities" in attributes:
        lines.append("PRIMARIES=" + " ".join(f"{value:.4f}" for value in attributes["chromaticities"]))
    if "pixelAspectRatio" in attributes:
        lines.append(f"PIXASPECT={1 / attributes['pixelAspectRatio']:.6f}")
    for name, value in sorted(attributes.items()):
        if name.startswith(PREFIX):
            # A file name may hold a line break, which would end the comment and begin a header line.
            lines.append(f"# {name}: {' '.join(str(value).split())}")
    return lines


def read_radiance(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, dict[str, str]]:
    """A Radiance picture (RGBE): float32 H×W×3, linear, as stored; and its header, names to values, comments too.

    Decoded in memory by imagecodecs: OpenCV crashes on a name that is not UTF-8, and copies bytes that it is given into
    a file in /tmp, as does imageio, which uses OpenCV for Radiance.
    Raises Ldr2hdrError for a damaged file, another orientation or format, and more than `max_pixels`.
    """
    import imagecodecs

    with path.open("rb") as file:
        header = _HEADER.match(file.read(_LONGEST_HEADER))
        if header is None or b"\nFORMAT=32-bit_rle_rgbe\n" not in b"\n" + header[1]:
            raise Ldr2hdrError(f"{path} is damaged or is not Radiance RGBE stored from the top; write it again.")
        height, width = int(header[2]), int(header[3])
        if width * height > max_pixels:
            raise Ldr2hdrError(f"{path} has {width}×{height} pixels, more than the {max_pixels} allowed.")
        file.seek(header.end())
        codes = file.read(5 * width * height + 5 * height)  # the most that run lengths can make of four bytes a pixel
    pixels = np.empty((height, width, 3), np.float32)
    try:
        imagecodecs.rgbe_decode(codes, header=False, rle=True, out=pixels)
    except (imagecodecs.RgbeError, ValueError) as error:
        raise Ldr2hdrError(f"{path} is damaged or cut off ({error}); write it again.") from None
    variables = {}
    for line in header[1].decode("utf-8", "replace").splitlines():
        name, _, value = line.lstrip("# ").partition(": " if line.startswith("#") else "=")
        variables[name] = value
    return pixels, variables
