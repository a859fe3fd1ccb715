"""The highlights that a source brings itself, and those that are made up."""

import numpy as np

from ldr2hdr_cli.media.source_info import Frame, SourceInfo
from model.exposure import Encoding, exposure_mask, linearise
from model.gain_map import with_gain


def with_own_light(frame: Frame, info: SourceInfo, hdr: np.ndarray, encoding: Encoding, threshold: float) -> np.ndarray:
    """What is written of a frame: `hdr`, or where the file has a gain map, its own light below the map's maximum.

    hdr: of eq. 1, linear, H×W×3; in the source's primaries and before any exposure, as the map is meant.
    threshold: α of the mask.
    """
    if frame.gain is None:
        return hdr
    seen = linearise(frame.pixels, encoding.transfer, encoding.gamma)
    if info.is_hdr:
        return seen * frame.gain
    return with_gain(hdr, seen, frame.gain, info.gain_max, exposure_mask(frame.pixels, threshold))
