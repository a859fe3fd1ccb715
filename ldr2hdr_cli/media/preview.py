"""A strip of pictures that shows, on any screen, what the reconstruction has gained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from model.atomic import write_atomically
from model.exposure import Encoding, encode, linearise
from model.rendering import Matrix

Curve = Literal["soft", "plain", "filmic"]
STOPS = (-4, -2, 0)
LABEL_HEIGHT = 24  # pixels, above each panel
_TALLEST = 4  # panels of a very tall picture are narrowed rather than higher than this many widths


def preview_strip(
    source: np.ndarray,
    hdr: np.ndarray,
    *,
    curve: Curve = "soft",
    encoding: Encoding = Encoding(),
    source_matrix: Matrix | None = None,
    matrix: Matrix | None = None,
    white: float = 1.0,
    width: int = 480,
) -> np.ndarray:
    """Four labelled panels side by side: the source as it is, and the result at −4, −2 and 0 stops.

    source: H×W×3, display-encoded, [0, 1]. hdr: H×W×3, linear. Returns uint8, h×(4·width)×3. curve: see `shown`.
    source_matrix, matrix: from the linear RGB of the source, and of the result, to Rec.709; None where they are that.
    encoding, white: of the source, and where LDR white lies in the result.
    """
    if source.shape != hdr.shape or source.ndim != 3 or source.shape[2] != 3:
        raise ValueError(f"source and hdr must be the same H×W×3, not {source.shape} and {hdr.shape}")
    screen = display(encoding, source_matrix)
    # Made smaller as light, as the result is, so that the two are the same.
    before = in_rec709(fit(linearise(source, encoding.transfer, encoding.gamma), width), source_matrix)
    panels = [_labelled(shown(before, 0, screen, "plain"), "source", width)]
    small = in_rec709(fit(np.nan_to_num(hdr, nan=0.0, posinf=1e30), width), matrix)
    for stop in STOPS:
        seen = shown(small, stop, screen, curve, white)
        name = "0 stops" if stop == 0 else f"{stop} stops"
        panels.append(_labelled(seen, f"result, {name}", width))
    return np.concatenate(panels, axis=1)


def shown(light: np.ndarray, stops: float, encoding: Encoding, curve: Curve = "soft", white: float = 1.0) -> np.ndarray:
    """Linear Rec.709 light ≥ 0, H×W×3, as display-encoded values in [0, 1], at an exposure in stops.

    "soft": what is not above `white`, the clip level, goes back through `encoding`, so that at 0 stops it is the source
    itself; what is above is rolled off into the room that is left up to 1, its colour kept. "plain": the same, but
    clipped at 1, channel by channel. "filmic": all is rolled off (`filmic`) and encoded for sRGB.
    """
    light = light * np.float32(2.0**stops)
    if curve == "filmic":
        return encode(filmic(light), "srgb")
    light = np.minimum(light, 1) if curve == "plain" else _rolled_off(light, white * 2.0**stops)
    return encode(light, encoding.transfer, encoding.gamma)


def display(encoding: Encoding, source_matrix: Matrix | None) -> Encoding:
    """For which screen a source is shown: as it is itself, but another gamut's own gamma is none of an sRGB screen.

    Nor are PQ and HLG, whose codes an sRGB screen would show washed out.
    """
    is_foreign = source_matrix is not None and encoding.transfer == "gamma"
    return Encoding("srgb") if is_foreign or encoding.transfer in ("pq", "hlg") else encoding


def in_rec709(light: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Linear light in Rec.709, float32 ≥ 0; colours outside of it lose what is negative."""
    if matrix is not None:
        light = light @ np.array(matrix, np.float32).T
    return np.maximum(light, 0)


def _rolled_off(light: np.ndarray, white: float) -> np.ndarray:
    """What is above `white` in its brightest channel brought below 1, all channels alike, so that its hue holds.

    It fades to white with the square of the share that it lost: a sun would be darker than the clipped ring around it.
    """
    peak = light.max(-1, keepdims=True)
    room = max(1 - white, 0)
    over = np.maximum(peak - white, 0)
    limit = white + over * room / (room + over) if room else np.minimum(peak, 1)
    kept = np.where(peak > min(white, 1), limit / np.maximum(peak, 1e-30), 1)
    rolled: np.ndarray = light * kept
    return rolled + (limit - rolled) * (1 - kept) ** 2


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


def fit(picture: np.ndarray, width: int) -> np.ndarray:
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
