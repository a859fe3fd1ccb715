"""Photographs and other stills: upright, RGB, at the depth they were stored in, their colour space kept in mind.

What only some stills need (tifffile, imagecodecs, OpenCV, LittleCMS) is imported where it is used.
"""

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ldr2hdr_cli.media.colour import ADOBE_RGB, PRIMARIES, TRANSFERS, are_primaries
from ldr2hdr_cli.media.icc import KNOWN, SRGB, Space, deep_to_srgb, space_of, to_srgb
from ldr2hdr_cli.media.limits import MAX_PIXELS, check_size
from ldr2hdr_cli.media.metadata import of_still
from ldr2hdr_cli.media.source_info import Frame, SourceInfo
from model.errors import Ldr2hdrError
from model.exposure import Encoding

HDR_SUFFIXES = {".exr", ".hdr", ".pic", ".rgbe", ".pfm"}
_HDR_TRANSFER = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_TILE = 2**20  # pixels that a tile may always have, however few --max-pixels allows

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong is said once, by our own sentence
Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked here, in one place, before anything is decoded


def probe_still(path: Path, max_pixels: int = MAX_PIXELS) -> SourceInfo:
    """What a still is, from its header. Raises Ldr2hdrError."""
    with _reading(path):
        _refuse_hdr(path)
        if deep := _deep(path, max_pixels, header_only=True):
            return deep[0]
        with _opened(path, max_pixels) as image:
            return _source_info(path, image)


def read_still(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[SourceInfo, Frame]:
    """A still and its pixels. max_pixels: refuse more than this, before decoding.

    EXIF orientation is applied. The pixels stay in the space of the file, whose primaries and curve are in the
    SourceInfo; only where an ICC profile has tables, or is for inks, they are converted to sRGB. CMYK and grey become
    RGB. 16-bit PNG and TIFF keep their depth. Alpha is straight and untouched. Raises Ldr2hdrError for what cannot be
    read whole, and for HDR.
    """
    with _reading(path):
        _refuse_hdr(path)
        if deep := _deep(path, max_pixels):
            return deep
        with _opened(path, max_pixels) as image:
            info = _source_info(path, image)
            image.load()
            return info, _frame(path, image)


class _reading:
    """Turns what the decoders raise into one sentence; they raise nearly anything on a malformed file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: type | None, error: BaseException | None, _trace: Any) -> None:
        self.quiet.__exit__(None, None, None)
        if error is None or isinstance(error, Ldr2hdrError) or not isinstance(error, Exception):
            return
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise Ldr2hdrError(f"{self.path} cannot be opened ({error.strerror}).") from None
        if isinstance(error, MemoryError):
            raise Ldr2hdrError(f"{self.path} does not fit into memory.") from None
        if isinstance(error, Image.UnidentifiedImageError):
            raise Ldr2hdrError(f"{self.path} is not a picture in a known format, whatever its name says.") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Ldr2hdrError(f"{self.path} cannot be read whole ({reason}); it is damaged or cut off.") from None


def _refuse_hdr(path: Path) -> None:
    start = _start(path)
    radiance = start.startswith((b"#?RADIANCE", b"#?RGBE"))
    if start.startswith(b"\x76\x2f\x31\x01") or radiance or path.suffix.lower() in HDR_SUFFIXES:
        raise Ldr2hdrError(f"{path} is HDR already: nothing in it is clipped that could be reconstructed.")
    _, transfer = _code_points(start)
    if transfer in _HDR_TRANSFER:
        raise Ldr2hdrError(
            f"{path} is HDR already: its transfer is {_HDR_TRANSFER[transfer]}; convert it with a colour-managed tool."
        )


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _code_points(start: bytes) -> tuple[int, int]:
    """Primaries and transfer of ITU-T H.273 that a PNG, HEIF or AVIF names; 2 is "unspecified"."""
    if start.startswith(b"\x89PNG") and (at := start.find(b"cICP")) > 0:
        return start[at + 4], start[at + 5]
    if b"ftyp" in start[:16] and (at := start.find(b"colrnclx")) > 0:
        return int.from_bytes(start[at + 8 : at + 10], "big"), int.from_bytes(start[at + 10 : at + 12], "big")
    return 2, 2


def _space(path: Path, image: Image.Image) -> tuple[Space, tuple[str, ...]]:
    """What the codes mean, by what the file says of them, and what of that had to be assumed.

    In the order in which the PNG specification, 4.3, ranks them: code points, ICC profile, sRGB, gamma and primaries;
    then what EXIF says. A file that says nothing is sRGB.
    """
    primaries, transfer = _code_points(_start(path))
    profile, info = image.info.get("icc_profile"), image.info
    if primaries in PRIMARIES and transfer in TRANSFERS and not (profile and image.format != "PNG"):
        return Space(*PRIMARIES[primaries], TRANSFERS[transfer][1]), ()
    if profile and (space := _of_profile(profile, image.mode)):
        return space, ()
    if "srgb" in info:
        return SRGB, ()
    if image.format == "PNG" and ("gamma" in info or "chromaticity" in info):
        return _of_chunks(info.get("gamma"), info.get("chromaticity"))
    exif = image.getexif()
    tag = exif.get_ifd(0x8769).get(0xA001)  # ColorSpace
    if tag == 2 or exif.get_ifd(0xA005).get(1) == "R03":  # DCF's optional space (CIPA DC-009, 3.2.4)
        return _ADOBE_RGB, ()
    return SRGB, () if tag == 1 else ("primaries", "transfer")


_ADOBE_RGB = Space("adobergb", ADOBE_RGB, Encoding("gamma", 563 / 256))  # Adobe RGB (1998), 4.3.4.2


def _of_profile(profile: bytes, mode: str) -> Space | None:
    """None for a profile that is broken, or for pixels of another kind."""
    space = space_of(profile)
    is_ink = profile[16:20] == b"CMYK"
    return space if is_ink == (mode == "CMYK") else None


def _of_chunks(gamma: float | None, given: tuple[float, ...] | None) -> tuple[Space, tuple[str, ...]]:
    """gAMA and cHRM of a PNG. 1/2.2 stands for sRGB, as the specification has it written beside an sRGB chunk."""
    primaries, chromaticities = "bt709", SRGB.chromaticities
    given = given and (*given[2:], *given[:2])  # white comes first
    found = given if given and are_primaries(given) else None
    if found:
        names = (item for item in KNOWN.items() if np.allclose(item[1], found, rtol=0, atol=0.001))
        primaries, chromaticities = next(names, ("png", found))
    is_srgb = gamma is None or abs(gamma - 1 / 2.2) < 0.001
    encoding = SRGB.encoding if is_srgb or not gamma else Encoding("gamma", 1 / gamma)
    assumed = tuple(name for name, value in (("primaries", found), ("transfer", gamma)) if value is None)
    return Space(primaries, chromaticities, encoding), assumed


def _opened(path: Path, max_pixels: int) -> Image.Image:
    image = Image.open(path)
    check_size(path, image.width, image.height, max_pixels)
    return image


def _source_info(path: Path, image: Image.Image) -> SourceInfo:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"it has {image.n_frames} pictures; the first one is converted.")  # type: ignore[attr-defined]
    if image.mode in ("F", "I"):
        raise Ldr2hdrError(f"{path} holds {image.mode} pixels of 32 bits; give an 8- or 16-bit picture.")
    space, assumed = _space(path, image)
    if space.is_converted:
        notes.append(_CONVERTED)
    # Pillow turns a TIFF by itself when it loads it, and gives the turned size from the start.
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8) and image.format != "TIFF"
    return SourceInfo(
        path=path,
        kind="still",
        width=image.height if turned else image.width,
        height=image.width if turned else image.height,
        bit_depth=16 if image.mode.startswith("I;16") else 1 if image.mode == "1" else 8,
        chromaticities=space.chromaticities,
        primaries=space.primaries,
        has_alpha=_has_alpha(image),
        notes=tuple(notes),
        codec=(image.format or "").lower(),
        full_range=True,
        transfer=str(space.encoding),
        encoding=space.encoding,
        assumed=assumed,
        metadata=of_still(image),
    )


_CONVERTED = "its colour profile is converted to sRGB."


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _frame(path: Path, image: Image.Image) -> Frame:
    profile = image.info.get("icc_profile")
    space, _ = _space(path, image)
    image = ImageOps.exif_transpose(image)
    alpha = None
    if _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / 255
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return Frame(np.repeat(grey[..., None], 3, 2), alpha)
    if space.is_converted and profile:
        image = to_srgb(image, profile)
    elif image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if alpha is not None else "RGB")
    pixels = np.array(np.asarray(image)[..., :3], np.float32, order="C")
    pixels /= 255  # in place: a large picture has no second copy
    return Frame(pixels, alpha)


def _deep(path: Path, max_pixels: int, header_only: bool = False) -> tuple[SourceInfo, Frame] | None:
    """16-bit PNG and TIFF in colour, which Pillow would bring down to 8 bits; None for everything else.

    header_only: nothing is decoded, and the frame is one black pixel.
    """
    with path.open("rb") as file:
        start = file.read(33)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _deep_tiff(path, max_pixels, header_only)
    if start.startswith(b"\x89PNG") and start[24:25] == b"\x10":
        samples = {0: 1, 2: 3, 4: 2, 6: 4}.get(start[25], 0)  # PNG specification, 11.2.2, colour type
        return _deep_png(path, max_pixels, samples if header_only else None)
    return None


def _deep_png(path: Path, max_pixels: int, samples: int | None) -> tuple[SourceInfo, Frame]:
    import cv2

    with _opened(path, max_pixels) as image:
        info = replace(_source_info(path, image), bit_depth=16, width=image.width, height=image.height)
        profile, orientation = image.info.get("icc_profile"), image.getexif().get(0x0112, 1)
        if samples is not None:
            samples += samples == 3 and "transparency" in image.info  # which cv2 makes an alpha channel
            return _deep_frame(info, np.zeros((1, 1, samples), np.uint16), profile, orientation)
        image.load()  # Pillow finds what is cut off, and cv2 does not say
    codes = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if codes is None or codes.dtype != np.uint16:
        raise ValueError("no 16-bit picture inside")
    if codes.ndim == 3:
        codes = codes[..., [2, 1, 0, 3][: codes.shape[2]]]
    return _deep_frame(info, codes, profile, orientation)


def _deep_tiff(path: Path, max_pixels: int, header_only: bool) -> tuple[SourceInfo, Frame] | None:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        samples = int(page.samplesperpixel)
        if page.imagedepth != 1:
            raise Ldr2hdrError(f"{path} is a volume of {page.imagedepth} slices and no picture; give one slice.")
        check_size(path, page.imagewidth, page.imagelength, max_pixels, samples)
        # A decoder makes room for whole tiles, which may be larger than the picture.
        tile = page.tilewidth, page.tilelength * page.tiledepth
        check_size(path, *tile, max(max_pixels, _TILE), samples, what="tiles of ")
        if page.dtype is not None and page.dtype.kind == "f":
            raise Ldr2hdrError(f"{path} is HDR already: its pixels are float.")
        if page.bitspersample != 16:
            return None
        if page.photometric.name not in ("RGB", "MINISBLACK", "MINISWHITE"):
            raise Ldr2hdrError(f"{path} is a 16-bit {page.photometric.name} TIFF; convert it to RGB first.")
        codes = np.zeros((1, 1, samples), np.uint16) if header_only else page.asarray()
        if int(page.planarconfig or 1) == 2 and codes.ndim == 3 and not header_only:
            codes = np.moveaxis(codes, 0, 2)
        if page.photometric.name == "MINISWHITE":
            codes = 65535 - codes
        associated = 1 in (page.extrasamples or ())
        profile = page.tags["InterColorProfile"].value if "InterColorProfile" in page.tags else None
        orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
        several = len(tiff.pages) > 1
    space = _of_profile(profile, "RGB") if profile else None
    info = SourceInfo(
        path,
        "still",
        page.imagewidth,
        page.imagelength,
        16,
        codec="tiff",
        full_range=True,
        chromaticities=(space or SRGB).chromaticities,
        primaries=(space or SRGB).primaries,
        transfer=str((space or SRGB).encoding),
        encoding=(space or SRGB).encoding,
        assumed=() if space else ("primaries", "transfer"),
        notes=("it has several pictures; the first one is converted.",) if several else (),
    )
    found = _deep_frame(info, codes, profile, int(orientation))
    if associated and found[1].alpha is not None:
        alpha = found[1].alpha[..., None]
        found[1].pixels = np.clip(
            np.divide(found[1].pixels, alpha, where=alpha > 0, out=np.zeros_like(found[1].pixels)), 0, 1
        )
    return found


def _deep_frame(
    info: SourceInfo, codes: np.ndarray, profile: bytes | None, orientation: int
) -> tuple[SourceInfo, Frame]:
    """16-bit codes, H×W or H×W×(1 to 4), upright and in a space that is kept. info: its size as stored."""
    if codes.ndim == 2:
        codes = codes[..., None]
    values = codes.astype(np.float32) / np.float32(65535)
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    pixels = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    notes = tuple(note for note in info.notes if note != _CONVERTED)
    if profile and (space := space_of(profile)) and space.is_converted:
        try:
            pixels = deep_to_srgb(pixels, profile)
            notes = (*notes, _CONVERTED)
        except ValueError:
            notes = (*notes, "its colour profile cannot be used; its numbers are taken for sRGB.")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, 2)
    pixels, alpha = _upright(pixels, orientation), None if alpha is None else _upright(alpha, orientation)
    turned = orientation in (5, 6, 7, 8)
    info = replace(
        info,
        width=info.height if turned else info.width,
        height=info.width if turned else info.height,
        has_alpha=alpha is not None,
        notes=notes,
    )
    return info, Frame(np.ascontiguousarray(pixels), alpha)


def _upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4 A) applied."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    across = -1 if orientation in (2, 3, 6, 7) else 1
    down = -1 if orientation in (3, 4, 7, 8) else 1
    return np.ascontiguousarray(picture[::down, ::across])
