"""Clips and pictures that the tests make for themselves."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("same_every_time", derandomize=True, deadline=None)
settings.load_profile("same_every_time")


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "ffv1",
    pixels: str = "yuv444p",
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    times: Sequence[int] | None = None,
    metadata: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    interlaced: bool = False,
    rotation: int = 0,
    layout: str | None = None,
) -> Path:
    """Encode frames whose samples are code values of `pixels` (or of `layout`, brought to `pixels` by FFmpeg).

    tags: attributes of the codec context in the numbers of ITU-T H.273. times: time stamps in units of 1/rate.
    """
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2] if layout or frames[0].ndim == 2 else _size(frames[0], pixels)
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = 1 / Fraction(rate)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for index, samples in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(samples, format=layout or pixels)
            if layout:
                frame = frame.reformat(format=pixels)
            frame.pts = times[index] if times else index
            frame.time_base = 1 / Fraction(rate)
            if "color_range" in (tags or {}):
                frame.color_range = tags["color_range"]  # type: ignore[index]
            if "colorspace" in (tags or {}):
                frame.colorspace = tags["colorspace"]  # type: ignore[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _size(samples: np.ndarray, pixels: str) -> tuple[int, int]:
    return samples.shape[0], samples.shape[1]


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """clip(name, frames, **how) → the path of an encoded clip; see write_clip."""
    return lambda name, frames, **how: write_clip(tmp_path / name, frames, **how)
