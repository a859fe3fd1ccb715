"""The gain map of a still beside its picture: looked for in the container, turned with it, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ldr2hdr_cli.media.gain_map import GainMap, apple, standard
from ldr2hdr_cli.media.heif import Heif
from ldr2hdr_cli.media.heif_items import tone_map
from ldr2hdr_cli.media.orientation import upright
from ldr2hdr_cli.media.source_info import SourceInfo
from model.exposure import linearise


def gain_of(found: GainMap, info: SourceInfo, pixels: np.ndarray, orientation: int = 1) -> np.ndarray:
    """What a map says of each pixel. orientation: EXIF's, of the picture, in which the map is stored too."""
    turned = replace(found, codes=upright(found.codes, orientation))
    return turned.factor(linearise(pixels, info.encoding.transfer, info.encoding.gamma))


def with_note(info: SourceInfo, gain_map: str) -> SourceInfo:
    stops = np.log2(max(info.gain_max))
    above = (
        "the file's own light is taken alone" if gain_map == "only" else "the network decides above the map's maximum"
    )
    note = f"its gain map holds highlights of up to {stops:.2f} stops above white; {above}."
    return replace(info, is_hdr=gain_map == "only", notes=(*info.notes, note))


def in_heif(heif: Heif) -> GainMap | None:
    """The standard's, or else Apple's, which newer phones write both."""
    if item := tone_map(heif.info.path.read_bytes()):
        found = standard(item[0], heif.map_values(item[1]))
        if found is not None and max(found.high) > 0:
            return found
    if apple_map := heif.gain_map():
        return apple(*apple_map, heif.exif)
    return None


def found_in(info: SourceInfo, read: Callable[[], GainMap | None]) -> tuple[SourceInfo, GainMap | None]:
    """What `read` finds; nothing and a note where it fails, since the picture itself may well be whole."""
    try:
        found = read()
    except Exception as error:  # as `_reading`
        reason = " ".join(str(error).split()) or type(error).__name__
        return replace(info, notes=(*info.notes, f"its gain map is damaged ({reason}), and left out.")), None
    return info, found


def in_avif(path: Path) -> GainMap | None:
    import imagecodecs

    if (item := tone_map(path.read_bytes())) is None:
        return None
    codes = imagecodecs.avif_decode(item[1])
    scale = 255 if codes.dtype == np.uint8 else 1023 if codes.max() < 1024 else 4095
    codes = codes.astype(np.float32) / np.float32(scale)
    found = standard(item[0], codes[..., None] if codes.ndim == 2 else codes[..., :3])
    return found if found is not None and max(found.high) > 0 else None
