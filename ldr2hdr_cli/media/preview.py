"""A strip of pictures that shows, on any screen, what the reconstruction has gained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from model.atomic import write_atomically
from model.exposure import Transfer, encode

STOPS = (-4, -2, 0)
LABEL_HEIGHT = 24  # pixels, above each panel
_TALLEST = 4  # panels of a very tall picture are narrowed rather than higher than this many widths


def preview_strip(
    source: np.ndarray,
    hdr: np.ndarray,
    *,
    curve: Literal["plain", "filmic"] = "filmic",
    transfer: Transfer = "gamma",
    gamma: float = 2.0,
    width: int = 480,
) -> np.ndarray:
    """Four labelled panels side by side: the source as it is, and the result at −4, −2 and 0 stops.

    source: H×W×3, display-encoded, [0, 1]. hdr: H×W×3, linear, LDR white = 1.0. Returns uint8, h×(4·width)×3.
    curve: "plain" clips at 1.0 and goes back through `transfer` (and `gamma`), so that at 0 stops an
    unclipped pixel equals the source; "filmic" rolls highlights off (`filmic`) and encodes for sRGB.
    """
    if source.shape != hdr.shape or source.ndim != 3 or source.shape[2] != 3:
        raise ValueError(f"source and hdr must be the same H×W×3, not {source.shape} and {hdr.shape}")
    small = _fit(np.nan_to_num(hdr, nan=0.0, posinf=1e30), width)
    panels = [_labelled(_fit(source, width), "source", width)]
    for stop in STOPS:
        light = np.maximum(small, 0) * np.float32(2.0**stop)
        seen = encode(filmic(light), "srgb") if curve == "filmic" else encode(np.minimum(light, 1), transfer, gamma)
        name = "0 stops" if stop == 0 else f"{stop} stops"
        panels.append(_labelled(seen, f"result, {name}", width))
    return np.concatenate(panels, axis=1)


def filmic(linear: np.ndarray) -> np.ndarray:
    """Linear light ≥ 0 to linear display light in [0, 1], with a toe and a shoulder.

    The rational fit to the ACES reference view by Narkowicz, "ACES Filmic Tone Mapping Curve", 2016, with the
    factor 0.6 that he gives for the view's own exposure; without it mid-grey comes out brighter than it was.
    """
    x = np.minimum(0.6 * linear, 1e4)  # where the curve has long been flat; its squares stay finite
    return np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)


def write_preview(path: Path, strip: np.ndarray) -> None:
    """Write a strip (uint8, H×W×3) as PNG tagged sRGB, atomically. Raises Ldr2hdrError where that fails."""
    tags = PngImagePlugin.PngInfo()
    tags.add(b"sRGB", b"\x00")  # rendering intent: perceptual
    encoded = io.BytesIO()
    Image.fromarray(strip).save(encoded, "PNG", pnginfo=tags)
    write_atomically(path, encoded.getbuffer())


def _fit(picture: np.ndarray, width: int) -> np.ndarray:
    """Scale to the panel: averaged when it shrinks, whole pixels when it grows."""
    height = picture.shape[0] * width / picture.shape[1]
    shrink = min(1.0, _TALLEST * width / height)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    method = cv2.INTER_AREA if size[0] < picture.shape[1] or size[1] < picture.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(picture, dtype=np.float32), size, interpolation=method)


def _labelled(panel: np.ndarray, text: str, width: int) -> np.ndarray:
    """To uint8, centred in `width` columns, under a dark bar with the text."""
    height, across = panel.shape[:2]
    framed = np.zeros((LABEL_HEIGHT + height, width, 3), np.uint8)
    left = (width - across) // 2
    framed[LABEL_HEIGHT:, left : left + across] = np.rint(np.clip(panel, 0, 1) * 255).astype(np.uint8)
    bar = Image.new("RGB", (width, LABEL_HEIGHT), (32, 32, 32))
    ImageDraw.Draw(bar).text((6, 4), text, fill=(230, 230, 230), font=ImageFont.load_default(14))
    framed[:LABEL_HEIGHT] = np.asarray(bar)
    return framed
