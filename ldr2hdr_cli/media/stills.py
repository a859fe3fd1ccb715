"""Photographs and other stills: upright, RGB, at the depth they were stored in, their colour space kept in mind.

What only some stills need (tifffile, imagecodecs, OpenCV, LittleCMS) is imported where it is used.
"""

import logging
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ldr2hdr_cli.media.gain_map import in_jpeg
from ldr2hdr_cli.media.heif import Heif, is_heif
from ldr2hdr_cli.media.icc import SRGB, deep_to_srgb, space_of, to_srgb
from ldr2hdr_cli.media.limits import MAX_PIXELS, check_size
from ldr2hdr_cli.media.metadata import of_still
from ldr2hdr_cli.media.orientation import upright
from ldr2hdr_cli.media.panorama import full_sphere
from ldr2hdr_cli.media.raw import DNG_VERSION, is_raw, read_raw
from ldr2hdr_cli.media.source_info import HDR_NOTES, Frame, SourceInfo, refuse_hdr
from ldr2hdr_cli.media.still_colour import of_profile, space_of_still
from ldr2hdr_cli.media.still_gain_map import found_in, gain_of, in_avif, in_heif, with_note
from model.codes import Codes
from model.errors import Ldr2hdrError

HDR_SUFFIXES = {".exr", ".hdr", ".pic", ".rgbe", ".pfm"}
_TILE = 2**20  # pixels that a tile may always have, however few --max-pixels allows

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong is said once, by our own sentence
Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked here, in one place, before anything is decoded


def probe_still(path: Path, max_pixels: int = MAX_PIXELS) -> SourceInfo:
    """What a still is, from its header; of its gain map, what there is. Raises Ldr2hdrError."""
    with _reading(path):
        return _read(path, max_pixels, header_only=True, gain_map="use")[0]


def read_still(
    path: Path,
    max_pixels: int = MAX_PIXELS,
    *,
    from_hdr: bool = False,
    gain_map: Literal["use", "ignore", "only"] = "ignore",
) -> tuple[SourceInfo, Frame]:
    """A still and its pixels. max_pixels: refuse more than this, before decoding.

    EXIF orientation is applied. The pixels stay in the space of the file, whose primaries and curve are in the
    SourceInfo; only where an ICC profile has tables, or is for inks, they are converted to sRGB. CMYK and grey become
    RGB. More than 8 bits are kept.
    Alpha is straight and untouched. from_hdr: PQ and HLG are read too. gain_map: "ignore" leaves `Frame.gain` out, and
    with "only" a picture that has one counts as HDR. Raises Ldr2hdrError for what cannot be read whole, and for HDR.
    """
    with _reading(path):
        info, frame = _read(path, max_pixels, gain_map=gain_map)
        refuse_hdr(info, from_hdr)
        if frame.gain is not None and info.codec != "raw":
            info = with_note(info, gain_map)
        return info, frame


def _read(path: Path, max_pixels: int, header_only: bool = False, gain_map: str = "ignore") -> tuple[SourceInfo, Frame]:
    """header_only: nothing is decoded, and the frame is one black pixel."""
    with path.open("rb") as file:
        start = file.read(1 << 20)
    if is_raw(path, start):
        return read_raw(path, max_pixels, header_only)
    if start.startswith((b"\x76\x2f\x31\x01", b"#?RADIANCE", b"#?RGBE")) or path.suffix.lower() in HDR_SUFFIXES:
        raise Ldr2hdrError(f"{path} is HDR already: nothing in it is clipped that could be reconstructed.")
    if is_heif(start):
        return _heif(path, max_pixels, header_only, gain_map)
    info, frame = _deep(path, start, max_pixels, header_only) or _plain(path, start, max_pixels, header_only, gain_map)
    if info.codec == "avif" and b"tmap" in start and gain_map != "ignore":
        info, found = found_in(info, lambda: in_avif(path))
        if found is not None:
            info = replace(info, gain_max=found.most)
            if not header_only:
                with Image.open(path) as image:
                    frame.gain = gain_of(found, info, frame.pixels, image.getexif().get(0x0112, 1))
    return info, frame


def _plain(path: Path, start: bytes, max_pixels: int, header_only: bool, gain_map: str) -> tuple[SourceInfo, Frame]:
    """Whatever Pillow reads, in 8 bits."""
    with _opened(path, max_pixels) as image:
        info = _source_info(path, start, image)
        found = None
        # Pillow calls it JPEG, and not MPO, where the XMP of the base says Ultra HDR.
        if image.format in ("MPO", "JPEG") and b"MPF\0" in start and gain_map != "ignore":
            info, found = found_in(info, lambda: in_jpeg(path.read_bytes(), image.getexif()))
        if found is not None:
            others = "; the first one is converted."
            info = replace(info, gain_max=found.most, notes=tuple(n for n in info.notes if not n.endswith(others)))
        if header_only:
            return info, Frame(np.zeros((1, 1, 3), np.float32), None)
        image.load()
        turn = image.getexif().get(0x0112, 1)
        frame = _frame(start, image)
        if found is not None:
            frame.gain = gain_of(found, info, frame.pixels, turn)
        return info, frame


def _heif(path: Path, max_pixels: int, header_only: bool, gain_map: str) -> tuple[SourceInfo, Frame]:
    heif = Heif(path, max_pixels)
    known, found = heif.info, None
    if gain_map != "ignore":
        known, found = found_in(known, lambda: in_heif(heif))
    if heif.profile and (space := of_profile(heif.profile, "RGB")):
        known = replace(
            known,
            chromaticities=space.chromaticities,
            primaries=space.primaries,
            transfer=str(space.encoding),
            encoding=space.encoding,
            assumed=(),
        )
    values = np.zeros((1, 1, 3 + heif.info.has_alpha), np.float32) if header_only else heif.values()
    info, frame = _deep_frame(known, values, heif.profile, 1)
    if found is not None:
        info = replace(info, gain_max=found.most)
        frame.gain = None if header_only else gain_of(found, info, frame.pixels)
    return info, frame


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
        if isinstance(error, UnidentifiedImageError):
            raise Ldr2hdrError(f"{self.path} is not a picture in a known format, whatever its name says.") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Ldr2hdrError(f"{self.path} cannot be read whole ({reason}); it is damaged or cut off.") from None


def _opened(path: Path, max_pixels: int) -> Image.Image:
    image = Image.open(path)
    check_size(path, image.width, image.height, max_pixels)
    return image


def _source_info(path: Path, start: bytes, image: Image.Image) -> SourceInfo:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"it has {image.n_frames} pictures; the first one is converted.")  # type: ignore[attr-defined]
    if image.mode in ("F", "I"):
        raise Ldr2hdrError(f"{path} holds {image.mode} pixels of 32 bits; give an 8- or 16-bit picture.")
    space, assumed = space_of_still(start, image)
    if space.is_converted:
        notes.append(_CONVERTED)
    is_hdr = space.encoding.transfer in HDR_NOTES
    if is_hdr:
        notes.append(HDR_NOTES[space.encoding.transfer])
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
        panorama=full_sphere(image.info.get("xmp")),
        is_hdr=is_hdr,
    )


_CONVERTED = "its colour profile is converted to sRGB."


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _frame(start: bytes, image: Image.Image) -> Frame:
    profile = image.info.get("icc_profile")
    space, _ = space_of_still(start, image)
    image = ImageOps.exif_transpose(image)
    alpha = None
    if _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / 255
    if image.mode.startswith("I;16"):
        return Frame(Codes(np.array(image, np.uint16)[..., None]), alpha)
    if space.is_converted and profile:
        image = to_srgb(image, profile)
    elif image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if alpha is not None else "RGB")
    return Frame(Codes(np.array(image)[..., :3]), alpha)


def _deep(path: Path, start: bytes, max_pixels: int, header_only: bool) -> tuple[SourceInfo, Frame] | None:
    """Colour PNG, TIFF and AVIF of more than 8 bits, which Pillow would bring down to 8; None for everything else.

    header_only: nothing is decoded, and the frame is one black pixel.
    """
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _deep_tiff(path, max_pixels, header_only)
    if start.startswith(b"\x89PNG") and start[24:25] == b"\x10":
        samples = {0: 1, 2: 3, 4: 2, 6: 4}.get(start[25], 0)  # PNG specification, 11.2.2, colour type
        return _deep_png(path, start, max_pixels, samples if header_only else None)
    # AV1CodecConfigurationRecord (AV1-ISOBMFF, 2.3.3): its third byte says high_bitdepth and twelve_bit.
    if start[4:8] == b"ftyp" and (at := start.find(b"av1C")) > 0 and start[at + 6] & 0x40:
        return _deep_avif(path, start, max_pixels, 12 if start[at + 6] & 0x20 else 10, header_only)
    return None


def _deep_avif(path: Path, start: bytes, max_pixels: int, bits: int, header_only: bool) -> tuple[SourceInfo, Frame]:
    import imagecodecs

    with _opened(path, max_pixels) as image:
        orientation = image.getexif().get(0x0112, 1)  # which Pillow makes of the container's turns and mirrors
        profile = image.info.get("icc_profile")
        info = replace(_source_info(path, start, image), bit_depth=bits, width=image.width, height=image.height)
    if header_only:
        values = np.zeros((1, 1, 3 + info.has_alpha), np.float32)
    else:
        values = imagecodecs.avif_decode(path.read_bytes(), index=0).astype(np.float32) / np.float32(2**bits - 1)
    return _deep_frame(info, values, profile, orientation)


def _deep_png(path: Path, start: bytes, max_pixels: int, samples: int | None) -> tuple[SourceInfo, Frame]:
    import cv2

    with _opened(path, max_pixels) as image:
        info = replace(_source_info(path, start, image), bit_depth=16, width=image.width, height=image.height)
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
        if DNG_VERSION in page.tags:  # whatever its suffix; its first page is a thumbnail as a rule
            return read_raw(path, max_pixels, header_only)
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
    space = of_profile(profile, "RGB") if profile else None
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
    with suppress(Exception), Image.open(path) as image:  # Pillow does not know every layout, and as `_reading`
        info = replace(info, metadata=of_still(image), panorama=full_sphere(image.info.get("xmp")))
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
    """Upright, and in a space that is kept. codes: uint16, or float32 in [0, 1], H×W or H×W×(1 to 4), as stored."""
    if codes.ndim == 2:
        codes = codes[..., None]
    alpha = _unit(codes[..., -1]) if codes.shape[2] in (2, 4) else None
    pixels = codes[..., :3] if codes.shape[2] >= 3 else codes[..., :1]
    notes = tuple(note for note in info.notes if note != _CONVERTED)
    if profile and (space := space_of(profile)) and space.is_converted:
        try:
            pixels = deep_to_srgb(_unit(pixels), profile)
            notes = (*notes, _CONVERTED)
        except ValueError:
            notes = (*notes, "its colour profile cannot be used; its numbers are taken for sRGB.")
    pixels, alpha = upright(pixels, orientation), None if alpha is None else upright(alpha, orientation)
    turned = orientation in (5, 6, 7, 8)
    info = replace(
        info,
        width=info.height if turned else info.width,
        height=info.width if turned else info.height,
        has_alpha=alpha is not None,
        notes=notes,
    )
    return info, Frame(Codes(pixels), alpha)


def _unit(codes: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]."""
    return codes.astype(np.float32) / np.float32(65535) if codes.dtype == np.uint16 else codes
