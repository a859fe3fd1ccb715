"""Reading what is trained on: photographs, and HDR pictures in every format that people keep them in."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import OpenEXR
import tifffile
from PIL import Image, ImageOps

from model.errors import Ldr2hdrError

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
HDR_SUFFIXES = {".hdr", ".pic", ".exr", ".tif", ".tiff"}
MAX_PIXELS = 2**28  # of a photograph; more is refused before it is decoded


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


def _read_exr(path: Path) -> np.ndarray:
    channels = OpenEXR.File(str(path)).channels()
    for name in ("RGB", "RGBA"):
        if name in channels:
            return np.asarray(channels[name].pixels)
    if "Y" in channels:
        return np.asarray(channels["Y"].pixels)
    raise PictureError(f"{path} has no channels R, G, B; it has {', '.join(channels)}.")


def _read_radiance(path: Path) -> np.ndarray:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it would speak beside our sentence
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if picture is None or picture.dtype != np.float32:
        raise PictureError(f"{path} cannot be read as a Radiance picture.")
    return picture[..., ::-1]


def _read_tiff(path: Path) -> np.ndarray:
    picture = tifffile.imread(path)
    if picture.dtype.kind != "f":
        raise PictureError(f"{path} holds whole numbers ({picture.dtype}): it is LDR; give a float TIFF.")
    return picture


_READERS = {".exr": _read_exr, ".hdr": _read_radiance, ".pic": _read_radiance, ".tif": _read_tiff, ".tiff": _read_tiff}
