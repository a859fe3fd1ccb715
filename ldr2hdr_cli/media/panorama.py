"""Which pictures are 360° panoramas: by what a file says of itself, or else by what it shows."""

import re
from dataclasses import replace
from typing import Literal

import numpy as np

from ldr2hdr_cli.media.source_info import SourceInfo

SMALLEST = 512  # pixels of width: a smaller one is an icon, and its views would show the network nothing
# How far what meets in a panorama may differ, against what need not. Of 177 panoramas, exposed
# so that 5 % clip, 169 keep to both; of 1,089 photographs cut to 2:1, 13, nearly all of them things on a plain ground.
_SEAM, _POLES = 0.4, 0.7


def full_sphere(xmp: bytes | str | None) -> bool | None:
    """What Google's Photo Sphere XMP metadata (GPano) says: whether it is an equirectangular panorama of the sphere.

    False for another projection, and for one of which the picture holds a part. None where it says nothing.
    """
    text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else xmp or ""
    found = re.findall(r"""GPano:(\w+)\s*(?:=\s*["']([^"']{0,64})["']|>([^<]{0,64})<)""", text)
    said = {name: (attribute or element).strip() for name, attribute, element in found}
    if "ProjectionType" not in said:
        return None
    pairs = (
        ("CroppedAreaImageWidthPixels", "FullPanoWidthPixels"),
        ("CroppedAreaImageHeightPixels", "FullPanoHeightPixels"),
    )
    is_whole = all(said.get(cropped) == said.get(full) for cropped, full in pairs)
    return said["ProjectionType"].lower() == "equirectangular" and is_whole


def looks_like_panorama(pixels: np.ndarray) -> bool:
    """Whether a picture, H×W×3, can be a whole equirectangular panorama: twice as wide as high, and closed.

    Its left and right edges meet, and its first and last rows each show one point. A film's frame of 2:1 does neither.
    """
    height, width = pixels.shape[:2]
    if width != 2 * height or width < SMALLEST:
        return False
    columns = pixels[:: max(1, height // 512)]
    apart = np.abs(columns[:, : width // 2] - columns[:, width // 2 :]).mean()  # what lies opposite
    seam = np.abs(columns[:, 0] - columns[:, -1]).mean()
    rows = pixels[:, :: max(1, width // 1024)]
    spread = rows.std(1).mean()
    poles = max(rows[0].std(0).mean(), rows[-1].std(0).mean())
    return bool(seam < _SEAM * apart and poles < _POLES * spread)


def told_apart(info: SourceInfo, pixels: np.ndarray, wanted: Literal["auto", "on", "off"]) -> SourceInfo:
    """The source with `panorama` settled as `--panorama` wants it, and a note where that was not asked for."""
    if wanted != "auto":
        return replace(info, panorama=wanted == "on")
    if info.panorama is None and looks_like_panorama(pixels):
        reason = "it is twice as wide as high and closes on itself"
    elif info.panorama:
        reason = "its XMP says so"
    else:
        return replace(info, panorama=False)
    note = f"it is taken for a 360° panorama ({reason}) and seen in perspective views; --panorama off sees it as it is."
    return replace(info, panorama=True, notes=(*info.notes, note))
