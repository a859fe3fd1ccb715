"""What the codes of a still mean, by what the file says of them: code points, ICC profile, chunks of a PNG, EXIF."""

import numpy as np
from PIL import Image

from ldr2hdr_cli.media.colour import ADOBE_RGB, PRIMARIES, TRANSFERS, are_primaries
from ldr2hdr_cli.media.icc import KNOWN, SRGB, Space, space_of
from model.exposure import Encoding

_ADOBE_RGB = Space("adobergb", ADOBE_RGB, Encoding("gamma", 563 / 256))  # Adobe RGB (1998), 4.3.4.2


def _code_points(start: bytes) -> tuple[int, int]:
    """Primaries and transfer of ITU-T H.273 that a PNG, HEIF or AVIF names; 2 is "unspecified"."""
    if start.startswith(b"\x89PNG") and (at := start.find(b"cICP")) > 0:
        return start[at + 4], start[at + 5]
    # Beside a gain map the first ones may be those of what base and map make together.
    if b"ftyp" in start[:16] and b"tmap" not in start and (at := start.find(b"colrnclx")) > 0:
        return int.from_bytes(start[at + 8 : at + 10], "big"), int.from_bytes(start[at + 10 : at + 12], "big")
    return 2, 2


def space_of_still(start: bytes, image: Image.Image) -> tuple[Space, tuple[str, ...]]:
    """What the codes mean, by what the file says of them, and what of that had to be assumed.

    In the order in which the PNG specification, 4.3, ranks them: code points, ICC profile, sRGB, gamma and primaries;
    then what EXIF says. A file that says nothing is sRGB. start: of the file, its first megabyte.
    """
    primaries, transfer = _code_points(start)
    profile, info = image.info.get("icc_profile"), image.info
    if primaries in PRIMARIES and transfer in TRANSFERS and not (profile and image.format != "PNG"):
        return Space(*PRIMARIES[primaries], TRANSFERS[transfer][1]), ()
    if profile and (space := of_profile(profile, image.mode)):
        return space, ()
    if "srgb" in info:
        return SRGB, ()
    if image.format == "PNG" and ("gamma" in info or "chromaticity" in info):
        return _of_chunks(info.get("gamma"), info.get("chromaticity"))
    exif = image.getexif()
    camera = exif.get_ifd(0x8769)
    tag = camera.get(0xA001)  # ColorSpace
    interoperability = exif.get_ifd(0xA005) if 0xA005 in camera else {}  # which Pillow 11 raises KeyError without
    if tag == 2 or interoperability.get(1) == "R03":  # DCF's optional space (CIPA DC-009, 3.2.4)
        return _ADOBE_RGB, ()
    return SRGB, () if tag == 1 else ("primaries", "transfer")


def of_profile(profile: bytes, mode: str) -> Space | None:
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
