"""AVIF in PQ and BT.2020: one picture that browsers and phones show in HDR, without an SDR twin."""

from pathlib import Path

import imagecodecs
import numpy as np

from ldr2hdr_cli.media.display_light import DisplayLight, pq
from model.atomic import write_atomically
from model.errors import Ldr2hdrError

LOSSLESS = 100  # of `quality`
_SPEED = 8  # of libaom, 0 to 10; 6 takes five times as long for 7 % less


def write_avif(
    path: Path,
    pixels: np.ndarray,
    *,
    light: DisplayLight = DisplayLight(),
    matrix: np.ndarray | None = None,
    bits: int = 10,
    quality: int = 90,
) -> None:
    """Write H×W×3 float32 linear pixels, LDR white = 1.0, as AVIF, atomically.

    bits: of a code, 10 or 12; full range, 4:4:4. quality: 1 to 100, where 100 keeps every code. light: how bright it is
    shown. matrix: from the primaries of `pixels` to BT.2020 (`display_light.to_rec2020`). The container's
    `nclx` box says BT.2020 and PQ (ITU-T H.273: 9, 16). Raises Ldr2hdrError where the file cannot be written.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be H×W×3, not {pixels.shape}")
    if bits not in (10, 12):
        raise ValueError(f"bits must be 10 or 12, not {bits}")
    names = imagecodecs.AVIF
    # R, G and B are kept as they are for the sake of every code; else Y, Cb and Cr, which compress better.
    coefficients = names.MATRIX_COEFFICIENTS.IDENTITY if quality == LOSSLESS else names.MATRIX_COEFFICIENTS.BT2020_NCL
    codes = np.rint(pq(light.nits(pixels, matrix)) * np.float32(2**bits - 1)).astype(np.uint16)
    try:
        data = imagecodecs.avif_encode(
            codes,
            level=quality,
            speed=_SPEED,
            bitspersample=bits,
            pixelformat=names.PIXEL_FORMAT.YUV444,
            primaries=names.COLOR_PRIMARIES.BT2020,
            transfer=names.TRANSFER_CHARACTERISTICS.PQ,
            matrix=coefficients,
            numthreads=1,  # more give other bytes
        )
    except (imagecodecs.AvifError, ValueError) as error:
        raise Ldr2hdrError(f"{path} cannot be encoded as AVIF ({error}); use --format exr.") from None
    write_atomically(path, bytes(data))
