"""Reading what is trained on: photographs, and HDR pictures in every format that people keep them in."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import OpenEXR
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import Ldr2hdrError

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
HDR_SUFFIXES = {".hdr", ".pic", ".exr", ".tif", ".tiff"}


class PictureError(Ldr2hdrError):
    """A picture that cannot be trained on. It is named once, counted, and left out."""


def find_pictures(folders: Sequence[Path], kind: Literal["photo", "hdr"]) -> list[Path]:
    """The pictures below some folders, sorted; by their suffix, hidden ones left out.

    Raises Ldr2hdrError for a folder that is missing, or when none holds a picture.
    """
    suffixes = PHOTO_SUFFIXES if kind == "photo" else HDR_SUFFIXES
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise Ldr2hdrError(f"{folder} is no folder; give a folder of {_kinds(kind)}.")
        found.update(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
        )
    if not found:
        names = ", ".join(map(str, folders))
        raise Ldr2hdrError(f"{names}: no {_kinds(kind)} there ({', '.join(sorted(suffixes))}).")
    return sorted(found)


def make_folder(path: Path) -> None:
    """Creates a folder to write to. Raises Ldr2hdrError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be made a folder ({error.strerror}); give another --out.") from None
    if not os.access(path, os.W_OK):
        raise Ldr2hdrError(f"{path} cannot be written to; give another --out.")


def _kinds(kind: str) -> str:
    return "photographs" if kind == "photo" else "HDR pictures"


def read_photo(path: Path) -> np.ndarray:
    """An LDR photograph, upright: float32 H×W×3, display-encoded in [0, 1]. Raises PictureError."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.float32) / 255
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path} cannot be read as a picture ({error}).") from None


def read_hdr(path: Path) -> np.ndarray:
    """An HDR picture (.exr, Radiance .hdr, float .tif): float32 H×W×3, linear, ≥ 0.

    Infinite values, which are suns that overflowed half, become 65504; negatives down to a thousandth of the maximum,
    which are a resampler's ringing, become 0. Raises PictureError for what is unreadable, LDR, NaN, negative, empty.
    """
    try:
        picture = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise PictureError(f"{path} is no HDR picture; give {', '.join(sorted(HDR_SUFFIXES))}.") from None
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
        raise PictureError(f"{path} holds NaN; mend it, for instance with oiiotool --fixnan.")
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
