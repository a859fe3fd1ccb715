"""HEIC and HEIF: pillow-heif (libheif) decodes them, an extra that is imported where it is used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldr2hdr_cli.media.colour import PRIMARIES, SRGB_CURVE, TRANSFERS
from ldr2hdr_cli.media.limits import check_size
from ldr2hdr_cli.media.metadata import of_exif
from ldr2hdr_cli.media.source_info import HDR_NOTES, SourceInfo, mastering_display
from model.errors import Ldr2hdrError

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}
_SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"avis"}


def is_heif(start: bytes) -> bool:
    """Whether a file that begins so is a HEIF still (ISO 23008-12, annex B): AVIF and sequences are not."""
    return start[4:8] == b"ftyp" and start[8:12] in _STILL_BRANDS and b"avif" not in _brands(start)


def is_sequence(start: bytes) -> bool:
    """Whether a file that begins so is an image sequence in HEIF or AVIF, which FFmpeg reads as a clip."""
    return start[4:8] == b"ftyp" and start[8:12] in _SEQUENCE_BRANDS


def _brands(start: bytes) -> set[bytes]:
    size = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[at : at + 4] for at in (8, *range(16, size, 4))}


class Heif:
    """An open file: what it is, without its pixels; `values` decodes them.

    info: size as displayed, since libheif applies the turns, mirrors and crops of the container; EXIF's orientation
    only repeats those (MIAF, ISO 23000-22, 7.3.6.7), and is passed over. profile: ICC, which goes before nclx.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        try:
            import pillow_heif
        except ImportError:
            raise Ldr2hdrError(
                f"{path} is HEIF, which pillow-heif reads: install it with `pip install 'ldr2hdr[heif]'`, or export "
                "the picture as JPEG or TIFF."
            ) from None
        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        self._image: Any = file[file.primary_index]
        width, height = self._image.size
        check_size(path, width, height, max_pixels)
        found: dict[str, Any] = self._image.info
        self.bits = int(found["bit_depth"])
        self.profile: bytes | None = found.get("icc_profile")
        self.exif = Image.Exif()
        self.exif.load(found.get("exif") or b"")
        self.maps: list[int] = found.get("aux", {}).get("urn:com:apple:photo:2020:aux:hdrgainmap", [])
        notes = (f"it has {len(file)} pictures; the primary one is converted.",) if len(file) > 1 else ()
        self.info = _coloured(
            SourceInfo(
                path,
                "still",
                width,
                height,
                self.bits,
                has_alpha=self._image.has_alpha,
                notes=notes,
                codec="heif",
                full_range=True,
                transfer="srgb",
                assumed=("primaries", "transfer"),
                pixel_aspect=_aspect(found),
                metadata=of_exif(self.exif, found.get("xmp")),
            ),
            found,
        )

    def values(self) -> np.ndarray:
        """float32 H×W×(1 to 4) in [0, 1]; alpha comes last, and is straight."""
        codes = np.asarray(self._image)
        codes = codes[..., None] if codes.ndim == 2 else codes
        values = codes.astype(np.float32) / np.float32(2**self.bits - 1)
        if self._image.premultiplied_alpha:
            alpha = values[..., -1:]
            np.divide(values[..., :-1], alpha, where=alpha > 0, out=values[..., :-1])
            np.clip(values, 0, 1, out=values)
        return values

    def map_values(self, data: bytes) -> np.ndarray:
        """As `values`, of another file's primary picture: what `heif_items.tone_map` made of this one."""
        import pillow_heif

        image = pillow_heif.open_heif(data)
        codes = np.asarray(image[image.primary_index]).astype(np.float32) / np.float32(255)
        return codes[..., None] if codes.ndim == 2 else codes[..., :3]

    def gain_map(self) -> tuple[np.ndarray, bytes] | None:
        """Apple's auxiliary gain map, uint8 h×w, and the XMP that newer phones write for it, or nothing."""
        if not self.maps:
            return None
        codes = np.asarray(self._image.get_aux_image(self.maps[0]))
        # libheif gives the XMP of pictures alone: that of the map is looked for in the file, where it stands as text.
        data = self.info.path.read_bytes()
        at = data.find(b"HDRGainMapHeadroom")
        begin, end = data.rfind(b"<x:xmpmeta", 0, max(at, 0)), data.find(b"</x:xmpmeta>", max(at, 0))
        xmp = data[begin : end + len(b"</x:xmpmeta>")] if 0 <= begin < at < end else b""
        return (codes if codes.ndim == 2 else codes[..., 0]), xmp


def _aspect(found: dict[str, Any]) -> float:
    across, down = found.get("pixel_aspect_ratio") or (1, 1)
    return across / down if across and down else 1.0


def _coloured(info: SourceInfo, found: dict[str, Any]) -> SourceInfo:
    """With what nclx says; where there is none, sRGB, as MIAF assumes (7.3.6.4)."""
    if not (nclx := found.get("nclx_profile")):
        return info
    levels = _light_levels(found.get("mastering_display_colour_volume"), found.get("content_light_level"))
    primaries, transfer = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
    name, chromaticities = PRIMARIES.get(primaries, PRIMARIES[1])
    transfer_name, encoding = TRANSFERS.get(transfer, ("srgb", SRGB_CURVE))
    named = {"primaries": primaries in PRIMARIES, "transfer": transfer in TRANSFERS}
    is_hdr = transfer_name in HDR_NOTES
    return replace(
        info,
        primaries=name,
        chromaticities=chromaticities,
        transfer=transfer_name,
        encoding=encoding,
        assumed=tuple(what for what, is_named in named.items() if not is_named),
        is_hdr=is_hdr,
        notes=(*info.notes, HDR_NOTES[transfer_name]) if is_hdr else info.notes,
        **levels,
    )


def _light_levels(mastering: dict[str, Any] | None, content: dict[str, int] | None) -> dict[str, Any]:
    """In the units of ISO/IEC 23008-2, annex D.2.28: 1/50,000 for coordinates, 1/10,000 cd/m² for luminance."""
    levels: dict[str, Any] = {}
    if mastering:
        x, y = mastering["display_primaries_x"], mastering["display_primaries_y"]
        # Green, blue, red, as the standard orders them.
        points = [(x[i] / 50_000, y[i] / 50_000) for i in (2, 0, 1)]
        points.append((mastering["white_point_x"] / 50_000, mastering["white_point_y"] / 50_000))
        low, high = (mastering[f"{end}_display_mastering_luminance"] / 10_000 for end in ("min", "max"))
        levels["mastering_display"] = mastering_display(points, low, high)
    if content:
        levels["max_cll"] = content["max_content_light_level"]
        levels["max_fall"] = content["max_pic_average_light_level"]
    return levels
