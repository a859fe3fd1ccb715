"""A frame in the formats that are looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ldr2hdr_cli.convert.rendering import rendering_of, written_primaries
from ldr2hdr_cli.convert.worklist import Work
from ldr2hdr_cli.media.colour import conversion
from ldr2hdr_cli.media.display_light import DisplayLight, to_rec2020
from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.options import ConvertOptions


def write_shown(
    format: str, path: Path, work: Work, pixels: np.ndarray, options: ConvertOptions, attributes: Mapping[str, Any]
) -> None:
    """Write a frame as "ultrahdr" or "avif".

    pixels: as in `model.rendering.Result`. Raises Ldr2hdrError.
    """
    info = work.info
    light, linear = display_light(info, options), in_source_primaries(pixels, info, options)
    if format == "ultrahdr":
        from ldr2hdr_cli.media.ultrahdr import write_ultrahdr

        source, ldr = work.item.input.path, work.frame.pixels
        how: dict[str, Any] = {"light": light, "encoding": info.encoding, "chromaticities": info.chromaticities}
        write_ultrahdr(path, linear, source, attributes, ldr=ldr, quality=options.quality, **how)
        return
    from ldr2hdr_cli.media.avif import write_avif

    matrix, bits = to_rec2020(info.chromaticities), int(options.avif_bits)
    write_avif(path, linear, light=light, matrix=matrix, bits=bits, quality=options.quality)


def in_source_primaries(pixels: np.ndarray, info: SourceInfo, options: ConvertOptions) -> np.ndarray:
    """A result as float32, without what --colorspace and --ocio make of it: they are for compositing."""
    linear = pixels.astype(np.float32, copy=False)
    matrix = conversion(written_primaries(info, options), info.chromaticities)
    return linear if matrix is None else np.asarray(cv2.transform(linear, np.array(matrix, np.float32)))


def display_light(info: SourceInfo, options: ConvertOptions) -> DisplayLight:
    """How bright this source's result is shown: one that a camera's curve or HLG encoded as televisions show it."""
    transfer = rendering_of(info, options).encoding.transfer
    viewing: Literal["none", "bt1886", "hlg"] = (
        "bt1886" if transfer == "bt709" else "hlg" if transfer == "hlg" else "none"
    )
    return DisplayLight(options.white, options.peak, viewing)
