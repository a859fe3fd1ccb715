"""Clips and pictures that the tests make for themselves."""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import settings

from tests import cli

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; read by torch when it is imported
    os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("same_every_time", derandomize=True, deadline=None)
settings.load_profile("same_every_time")


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray | tuple[np.ndarray, ...]],
    *,
    codec: str = "ffv1",
    pixels: str = "yuv444p",
    layout: str | None = None,
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    times: Sequence[int] | None = None,
    average: Fraction | int | None = None,
    metadata: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    matrix: Sequence[float] | None = None,
    field: str | None = None,
) -> Path:
    """Encode frames given as code values: a tuple holds the planes of `pixels`, an array is in `layout`.

    An array in another layout than `pixels` is brought there by FFmpeg. tags: attributes of the codec context, in the
    numbers of ITU-T H.273. times: time stamps in units of 1/rate. average: the rate that a container
    is told. options, muxing: of the codec and the container.
    matrix: a, b, c, d of the display matrix of an MP4 or MOV (ISO 14496-12, 8.3.2). field: "tff" or "bff", the field
    that frames are marked to begin with.
    """
    with av.open(str(path), "w", options=muxing or {}) as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=average or rate, options=options or {})
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = 1 / Fraction(rate)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for index, samples in enumerate(frames):
            frame = picture(samples, pixels, layout or pixels)
            if field:
                frame = _marked(frame, field)
            if index == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts = times[index] if times else index
            frame.time_base = 1 / Fraction(rate)
            for name in {"color_range", "colorspace"} & (tags or {}).keys():
                setattr(frame, name, (tags or {})[name])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if matrix:
        _set_matrix(path, matrix)
    return path


def picture(samples: np.ndarray | tuple[np.ndarray, ...], pixels: str, layout: str) -> Any:
    """A frame in the format `pixels`; see write_clip."""
    if pixels == "pal8" or not isinstance(samples, tuple):  # a palette comes as a pair: indices, and ARGB
        frame = av.VideoFrame.from_ndarray(samples, format=layout)
        return frame if layout == pixels else frame.reformat(format=pixels)
    height, width = samples[0].shape[:2]
    frame = av.VideoFrame(width, height, pixels)
    for plane, codes in zip(frame.planes, samples, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = codes.reshape(plane.height, -1).view(np.uint8)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return frame


def _marked(frame: Any, field: str) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(None, frame.width, frame.height, frame.format.name, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", field), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def _set_matrix(path: Path, matrix: Sequence[float]) -> None:
    """Into the first track header, version 0: 40 bytes stand between its name and the matrix."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 2**16) for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(data)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    cli.close_all()


@pytest.fixture(scope="session", autouse=True)
def no_helper_is_left() -> Iterator[None]:
    yield
    cli.close()


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """clip(name, frames, **how) → the path of an encoded clip; see write_clip."""
    return lambda name, frames, **how: write_clip(tmp_path / name, frames, **how)
