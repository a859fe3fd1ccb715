"""A camera's RAW files and DNG: LibRaw develops them, by rawpy, an extra that is imported where it is used."""

from pathlib import Path
from typing import Any

import numpy as np

from ldr2hdr_cli.media.colour import REC2020
from ldr2hdr_cli.media.limits import check_size
from ldr2hdr_cli.media.source_info import Frame, SourceInfo
from model.errors import Ldr2hdrError
from model.exposure import encode

RAW_SUFFIXES = {
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".ori", ".rw2", ".rwl",
    ".pef", ".srw", ".3fr", ".fff", ".iiq", ".mos", ".mrw", ".mef", ".kdc", ".dcr", ".erf", ".x3f", ".gpr",
}  # fmt: skip
# Canon CR3, CR2 and CRW, Fujifilm, Olympus, Panasonic, Minolta, Sigma. Others begin as any TIFF, and are known by their
# suffix, DNG also by its DNGVersion.
_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb", b"II\x1a\0\0\0HEAPCCDR")
DNG_VERSION = 50706  # a TIFF tag


def is_raw(path: Path, start: bytes) -> bool:
    """Whether a file is a RAW, by its suffix or by how it begins."""
    is_canon = start[4:12] == b"ftypcrx " or (start[:4] == b"II*\0" and start[8:10] == b"CR")
    return path.suffix.lower() in RAW_SUFFIXES or start.startswith(_STARTS) or is_canon


def read_raw(path: Path, max_pixels: int, header_only: bool = False) -> tuple[SourceInfo, Frame]:
    """Linear light of the camera's white balance in BT.2020 primaries; 1.0 is where the first channel clips.

    Frame.pixels is sRGB-encoded for the network, which has never seen linear codes, and `linearise` with "srgb" takes
    that back. What the channels that clip later still tell above 1.0 (LibRaw's highlight mode 2, "blend") is in
    Frame.gain; the network may only be brighter. header_only: nothing is developed, and the frame is one black pixel.
    Raises Ldr2hdrError without rawpy, or for what LibRaw cannot read.
    """
    try:
        import rawpy
    except ImportError:
        raise Ldr2hdrError(
            f"{path} is a camera's RAW: develop it first, as a 16-bit TIFF for instance, or install rawpy with "
            "`pip install 'ldr2hdr[raw]'`."
        ) from None
    try:
        with path.open("rb") as file, rawpy.imread(file) as raw:  # a name need not be UTF-8
            sizes = raw.sizes
            width, height = (sizes.iheight, sizes.iwidth) if sizes.flip in (5, 6) else (sizes.iwidth, sizes.iheight)
            check_size(path, width, height, max_pixels)
            balance, notes = _balance(raw)
            info = SourceInfo(
                path,
                "still",
                width,
                height,
                max(int(raw.white_level or 65535).bit_length(), 1),
                chromaticities=REC2020,
                primaries="bt2020",
                notes=notes,
                codec="raw",
                full_range=True,
                transfer="srgb",
                gain_max=(1.0,),
            )
            if header_only:
                return info, Frame(np.zeros((1, 1, 3), np.float32), None)
            codes = raw.postprocess(
                use_camera_wb=False,
                user_wb=balance,
                no_auto_bright=True,
                adjust_maximum_thr=0,  # or each picture would be scaled by its own brightest pixel
                output_bps=16,
                gamma=(1, 1),
                output_color=rawpy.ColorSpace.Rec2020,
                highlight_mode=rawpy.HighlightMode.Blend,
            )
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise Ldr2hdrError(f"{path} cannot be developed ({reason}); develop it with another program first.") from None
    # LibRaw scales the channel that is multiplied most to the full range, so the first one clips below it.
    light = codes.astype(np.float32) * np.float32(max(balance[:3]) / min(balance[:3]) / 65535)
    gain = np.maximum(light, 1)
    np.minimum(light, 1, out=light)
    return info, Frame(encode(light, "srgb"), None, gain=gain)


def _balance(raw: Any) -> tuple[list[float], tuple[str, ...]]:
    """Multipliers of red, green, blue and the second green, and what is to be said about them."""
    found, how = [1.0, 1.0, 1.0, 1.0], "its channels as they are, since it names no white balance"
    if min(raw.camera_whitebalance[:3]) > 0:
        found, how = raw.camera_whitebalance, "the camera's white balance"
    elif min(raw.daylight_whitebalance[:3]) > 0:
        found, how = raw.daylight_whitebalance, "the white balance of daylight, since it names none"
    balance = [float(value) for value in found]
    text = f"it is developed with {how}, linear, in BT.2020 primaries; 1.0 is where the first channel clips."
    return [*balance[:3], balance[3] if balance[3] > 0 else balance[1]], (text,)
