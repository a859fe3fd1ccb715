"""Pictures as arrays, for training and evaluating: photographs, and HDR pictures in every format people keep."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ldr2hdr_cli.media.exr import read_planes
from ldr2hdr_cli.media.limits import MAX_PIXELS
from ldr2hdr_cli.media.radiance import read_radiance
from model.errors import Ldr2hdrError

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
HDR_SUFFIXES = {".hdr", ".pic", ".exr", ".tif", ".tiff"}


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


def _kinds(kind: str) -> str:
    return "photographs" if kind == "photo" else "HDR pictures"


def read_photo(path: Path) -> np.ndarray:
    """An LDR photograph, upright: float32 H×W×3, display-encoded in [0, 1]. Raises Ldr2hdrError."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # our own sentence says it once
            if image.width * image.height > MAX_PIXELS:
                raise Ldr2hdrError(f"{path} has {image.width}×{image.height} pixels, more than {MAX_PIXELS} in all.")
            return _codes(path, ImageOps.exif_transpose(image))
    except Ldr2hdrError:
        raise
    except MemoryError:
        raise Ldr2hdrError(f"{path} does not fit into memory.") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a malformed file
        raise Ldr2hdrError(f"{path} cannot be read as a picture ({error}).") from None


def _codes(path: Path, image: Image.Image) -> np.ndarray:
    """The values of a picture of 8 or 16 bits. Pillow would clip grey of more than 8 bits instead of scaling it."""
    if image.mode in ("F", "I"):
        raise Ldr2hdrError(f"{path} has pixels of 32 bits; give a photograph of 8 or 16.")
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return np.repeat(grey[..., None], 3, 2)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def read_hdr(path: Path) -> np.ndarray:
    """An HDR picture (.exr, Radiance .hdr, float .tif): float32 H×W×3, linear, ≥ 0.

    Infinite values, which are suns that overflowed half, become 65504; negatives down to a thousandth of the maximum,
    which are a resampler's ringing, become 0. Raises Ldr2hdrError for what is unreadable, LDR, NaN, negative, empty.
    """
    try:
        picture = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise Ldr2hdrError(f"{path} is not an HDR picture; give {', '.join(sorted(HDR_SUFFIXES))}.") from None
    except Ldr2hdrError:
        raise
    except Exception as error:  # each library has its own kinds, and OpenEXR's are bare
        raise Ldr2hdrError(f"{path} cannot be read as an HDR picture ({error}).") from None
    return _checked(path, picture)


def _checked(path: Path, picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    if picture.ndim != 3 or picture.shape[2] < 3 or 0 in picture.shape:
        raise Ldr2hdrError(f"{path} has no RGB picture: its shape is {picture.shape}.")
    picture = np.ascontiguousarray(picture[..., :3], np.float32)
    if np.isnan(picture).any():
        raise Ldr2hdrError(f"{path} contains NaN; repair it, for instance with oiiotool --fixnan.")
    picture = np.minimum(picture, np.float32(65504))
    peak = float(picture.max())
    if peak <= 0:
        raise Ldr2hdrError(f"{path} is black.")
    if picture.min() < -1e-3 * peak:
        raise Ldr2hdrError(f"{path} holds negative values down to {picture.min():.3g}; clamp or convert it first.")
    return np.maximum(picture, 0)


def _read_radiance(path: Path) -> np.ndarray:
    return read_radiance(path, MAX_PIXELS)[0]


def _read_exr(path: Path) -> np.ndarray:
    planes, _ = read_planes(path, 4 * MAX_PIXELS)
    if planes.keys() >= {"R", "G", "B"}:
        return np.stack([planes[name] for name in "RGB"], -1)
    if "Y" in planes:
        return planes["Y"]
    raise Ldr2hdrError(f"{path} has no channels R, G, B; it has {', '.join(planes)}.")


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.dtype is None or page.dtype.kind != "f":
            raise Ldr2hdrError(f"{path} holds whole numbers ({page.dtype}): it is LDR; give a float TIFF.")
        if page.imagedepth != 1:
            raise Ldr2hdrError(f"{path} is a volume of {page.imagedepth} slices, not a picture.")
        _check_size(path, page.imagewidth, page.imagelength, page.samplesperpixel)
        _check_size(path, page.tilewidth, page.tilelength * page.tiledepth, page.samplesperpixel)
        picture = page.asarray()
        return np.moveaxis(picture, 0, 2) if page.axes == "SYX" else picture


def _check_size(path: Path, width: int, height: int, samples: int) -> None:
    if width * height * max(samples / 4, 1) > MAX_PIXELS:
        raise Ldr2hdrError(f"{path} has {width}×{height} pixels of {samples} samples, more than {MAX_PIXELS} in all.")


_READERS = {".exr": _read_exr, ".hdr": _read_radiance, ".pic": _read_radiance, ".tif": _read_tiff, ".tiff": _read_tiff}
