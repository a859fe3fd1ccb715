"""Reading what is trained on: photographs, and HDR pictures in every format that people keep them in."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from model.errors import Ldr2hdrError

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
HDR_SUFFIXES = {".hdr", ".pic", ".exr", ".tif", ".tiff"}
MAX_PIXELS = 2**28  # of a picture; more is refused before it is decoded
# Magic, variables and comments, an empty line, the size (Ward, "The RADIANCE Picture File Format"). Upright ones alone.
_RADIANCE = re.compile(rb"#\?[^\n]*\n((?:[^\n]+\n)*)\n-Y ([1-9][0-9]{0,8}) \+X ([1-9][0-9]{0,8})\n")
_RADIANCE_HEADER = 2**20  # bytes, at most


class PictureError(Ldr2hdrError):
    """A picture that cannot be trained on. It is named once, counted, and left out."""


def find_pictures(folders: Sequence[Path], kind: Literal["photo", "hdr"]) -> list[Path]:
    """The pictures below some folders, sorted; by their suffix. Hidden files and hidden subfolders are left out.

    Raises Ldr2hdrError for a folder that is missing, or when none holds a picture.
    """
    suffixes = PHOTO_SUFFIXES if kind == "photo" else HDR_SUFFIXES
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not os.path.isdir(folder):  # noqa: PTH112 (as isfile below)
            raise Ldr2hdrError(f"{folder} is not a folder; give a folder of {_kinds(kind)}.")
        for parent, inside, names in os.walk(os.fspath(folder)):  # links to folders are not followed: they may loop
            inside[:] = [name for name in inside if not name.startswith(".")]
            paths = [Path(parent, name) for name in names if not name.startswith(".")]
            # Path.is_file would be an error where a path is too long.
            found.update(p for p in paths if p.suffix.lower() in suffixes and os.path.isfile(p))  # noqa: PTH113
    if not found:
        given = ", ".join(map(str, folders))
        raise Ldr2hdrError(f"{given}: no {_kinds(kind)} there ({', '.join(sorted(suffixes))}).")
    return sorted(found)


def make_folder(path: Path) -> None:
    """Creates a folder to write to. Raises Ldr2hdrError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be created ({error.strerror}); choose another --out.") from None
    if not os.access(path, os.W_OK):
        raise Ldr2hdrError(f"{path} is not writable; choose another --out.")


def _kinds(kind: str) -> str:
    return "photographs" if kind == "photo" else "HDR pictures"


def read_photo(path: Path) -> np.ndarray:
    """An LDR photograph, upright: float32 H×W×3, display-encoded in [0, 1]. Raises PictureError."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # our own sentence says it once
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"{path} has {image.width}×{image.height} pixels, more than {MAX_PIXELS} in all.")
            return _codes(path, ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except MemoryError:
        raise PictureError(f"{path} does not fit into memory.") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a malformed file
        raise PictureError(f"{path} cannot be read as a picture ({error}).") from None


def _codes(path: Path, image: Image.Image) -> np.ndarray:
    """The values of a picture of 8 or 16 bits. Pillow would clip grey of more than 8 bits instead of scaling it."""
    if image.mode in ("F", "I"):
        raise PictureError(f"{path} has pixels of 32 bits; give a photograph of 8 or 16.")
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return np.repeat(grey[..., None], 3, 2)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def read_hdr(path: Path) -> np.ndarray:
    """An HDR picture (.exr, Radiance .hdr, float .tif): float32 H×W×3, linear, ≥ 0.

    Infinite values, which are suns that overflowed half, become 65504; negatives down to a thousandth of the maximum,
    which are a resampler's ringing, become 0. Raises PictureError for what is unreadable, LDR, NaN, negative, empty.
    """
    try:
        picture = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise PictureError(f"{path} is not an HDR picture; give {', '.join(sorted(HDR_SUFFIXES))}.") from None
    except PictureError:
        raise
    except Exception as error:  # each library has its own kinds, and OpenEXR's are bare
        raise PictureError(f"{path} cannot be read as an HDR picture ({error}).") from None
    return _checked(path, picture)


def _checked(path: Path, picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    if picture.ndim != 3 or picture.shape[2] < 3 or 0 in picture.shape:
        raise PictureError(f"{path} has no RGB picture: its shape is {picture.shape}.")
    picture = np.ascontiguousarray(picture[..., :3], np.float32)
    if np.isnan(picture).any():
        raise PictureError(f"{path} contains NaN; repair it, for instance with oiiotool --fixnan.")
    picture = np.minimum(picture, np.float32(65504))
    peak = float(picture.max())
    if peak <= 0:
        raise PictureError(f"{path} is black.")
    if picture.min() < -1e-3 * peak:
        raise PictureError(f"{path} holds negative values down to {picture.min():.3g}; clamp or convert it first.")
    return np.maximum(picture, 0)


def read_radiance(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, dict[str, str]]:
    """A Radiance picture (RGBE): float32 H×W×3, linear, as stored; and its header, names to values, comments too.

    Decoded in memory by imagecodecs. OpenCV crashes on a name that is not UTF-8, and copies bytes that it is given into
    a file in /tmp; so does imageio, which has no codec of its own for Radiance but hands that file to OpenCV.
    Raises PictureError.
    """
    import imagecodecs

    with path.open("rb") as file:
        header = _RADIANCE.match(file.read(_RADIANCE_HEADER))
        if header is None or b"\nFORMAT=32-bit_rle_rgbe\n" not in b"\n" + header[1]:
            raise PictureError(f"{path} is damaged or is not Radiance RGBE stored from the top; write it again.")
        height, width = int(header[2]), int(header[3])
        _check_size(path, width, height, max_pixels)
        file.seek(header.end())
        codes = file.read(5 * width * height + 5 * height)  # the most that run lengths can make of four bytes a pixel
    pixels = np.empty((height, width, 3), np.float32)
    try:
        imagecodecs.rgbe_decode(codes, header=False, rle=True, out=pixels)
    except (imagecodecs.RgbeError, ValueError) as error:
        raise PictureError(f"{path} is damaged or cut off ({error}); write it again.") from None
    variables = {}
    for line in header[1].decode("utf-8", "replace").splitlines():
        name, _, value = line.lstrip("# ").partition(": " if line.startswith("#") else "=")
        variables[name] = value
    return pixels, variables


def _read_radiance(path: Path) -> np.ndarray:
    return read_radiance(path)[0]


def _read_exr(path: Path) -> np.ndarray:
    import OpenEXR

    with path.open("rb") as file:  # OpenEXR takes no name that is not UTF-8
        for part in OpenEXR.File(file, header_only=True).parts:  # it decodes all of them
            low, high = part.header["dataWindow"]
            width, height = (int(last) - int(first) + 1 for first, last in zip(low, high, strict=True))
            _check_size(path, width, height, MAX_PIXELS, len(part.header["channels"]))
        file.seek(0)
        channels = OpenEXR.File(file).channels()
    for name in ("RGB", "RGBA"):
        if name in channels:
            return np.asarray(channels[name].pixels)
    if "Y" in channels:
        return np.asarray(channels["Y"].pixels)
    raise PictureError(f"{path} has no channels R, G, B; it has {', '.join(channels)}.")


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.dtype is None or page.dtype.kind != "f":
            raise PictureError(f"{path} holds whole numbers ({page.dtype}): it is LDR; give a float TIFF.")
        if page.imagedepth != 1:
            raise PictureError(f"{path} is a volume of {page.imagedepth} slices and no picture.")
        _check_size(path, page.imagewidth, page.imagelength, MAX_PIXELS, page.samplesperpixel)
        _check_size(path, page.tilewidth, page.tilelength * page.tiledepth, MAX_PIXELS, page.samplesperpixel)
        picture = page.asarray()
        return np.moveaxis(picture, 0, 2) if page.axes == "SYX" else picture


def _check_size(path: Path, width: int, height: int, most: int, samples: int = 3) -> None:
    if width * height * max(samples / 4, 1) > most:
        raise PictureError(f"{path} has {width}×{height} pixels of {samples} samples, more than {most} in all.")


_READERS = {".exr": _read_exr, ".hdr": _read_radiance, ".pic": _read_radiance, ".tif": _read_tiff, ".tiff": _read_tiff}
