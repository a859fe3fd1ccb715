"""From a picture as FFmpeg decodes it to display-encoded RGB: its own matrix and range, alpha, the way up."""

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type

from model.codes import Codes
from model.constants import LUMINANCE

# FFmpeg's numbers are those of ITU-T H.273. Kr and Kb: the luma weights of red and blue.
LUMA = {
    1: ("bt709", LUMINANCE[0], LUMINANCE[2]),
    4: ("fcc", 0.30, 0.11),
    5: ("bt470bg", 0.299, 0.114),
    6: ("smpte170m", 0.299, 0.114),
    7: ("smpte240m", 0.212, 0.087),
    9: ("bt2020nc", 0.2627, 0.0593),
}
_FULL = 2
_VECTOR = 64  # bytes: the longest that swscale writes at a time


def _unnamed(cls: type[Type], value: int) -> Type:
    """A kind of side data that PyAV has no name for (VIEW_ID of MV-HEVC, EXIF of HEIC), as PyAV 19 makes one.

    Before, PyAV refuses all side data of a frame that has one such, the display matrix among it.
    """
    kind: Any = object.__new__(cls)
    kind._name_, kind._value_ = f"UNKNOWN_{value}", value
    return kind  # type: ignore[no-any-return]


if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment]


@dataclass(frozen=True)
class Coding:
    """How the code values of a stream are meant."""

    matrix: int
    full_range: bool
    bits: int


def first_specified(*values: Any) -> int:
    """The first that says something: 2 is "unspecified" in H.273, 0 "reserved"."""
    return next((int(value) for value in values if value is not None and int(value) not in (0, 2)), 2)


def coding_of(context: Any, frame: Any) -> tuple[Coding, list[str]]:
    """Matrix, range and depth, and a note for each that the stream does not name."""
    notes: list[str] = []
    bits = max(component.bits for component in frame.format.components)
    if _is_rgb(frame.format):
        return Coding(0, True, bits), notes
    grey = _is_grey(frame.format)
    matrix = first_specified(context.colorspace, frame.colorspace)
    if matrix == 10:  # constant luminance; FFmpeg itself treats it as the other
        matrix = 9
    if matrix not in LUMA and not grey:
        matrix = 6 if frame.height <= 576 else 1
        notes.append(f"no matrix is named: {LUMA[matrix][0]} is assumed, from its height of {frame.height} lines.")
    ranges = [int(value) for value in (context.color_range, frame.color_range) if value is not None and int(value)]
    full = frame.format.name.startswith("yuvj") or bool(ranges and ranges[0] == _FULL)
    if not ranges and not full:
        full = grey
        notes.append(f"no range is named: {'full' if full else 'limited'} is assumed.")
    return Coding(matrix if matrix in LUMA else 1, full, bits), notes


def codes_of(frame: Any, coding: Coding) -> Codes:
    """What the frame's codes are, and how they mean R′G′B′: chroma brought to full resolution by swscale."""
    if _is_rgb(frame.format):
        name, size = ("rgb48le", 6) if coding.bits > 8 else ("rgb24", 3)
        return Codes(frame.reformat(format=name, threads=_threads(frame.width, size)).to_ndarray())
    # Asked for the range it has, swscale only shifts: code · 2^(16 − bits), but for some formats' luma in full range.
    side = 2 if coding.full_range else 1
    is_grey, name = _is_grey(frame.format), frame.format.name
    how: dict[str, Any] = {"src_color_range": side, "dst_color_range": side, "interpolation": "BICUBIC"}
    frame = frame.reformat(format="yuv444p16le", threads=_threads(frame.width, 2), **how)
    if coding.full_range:
        scale = 1 / (65535 - 65535 % 2 ** (16 - coding.bits)) if coding.bits < 16 else 1 / 65535
        luma, chroma, black = 1 / _white(name), scale, 0.0
    else:
        luma, chroma, black = 1 / (219 * 256), 1 / (224 * 256), 16 * 256.0
    if is_grey:
        return Codes(_planes(frame, 1), np.array([[luma, -luma * black]] * 3))
    _, red, blue = LUMA[coding.matrix]
    green = 1 - red - blue
    to_rgb = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    ) * np.array([luma, chroma, chroma])
    offset = -to_rgb @ np.array([black, 32768.0, 32768.0])
    return Codes(_planes(frame, 3), np.concatenate([to_rgb, offset[:, None]], 1))


def _threads(width: int, size: int) -> int:
    """As many as swscale likes, for 0, or 1 where more would race.

    Each has a slice of rows, and writes whole vectors, which may be beyond the end of its last row: into the next row,
    which is another thread's. size: bytes of a pixel in one plane.
    """
    return 0 if width * size % _VECTOR == 0 else 1


def _planes(frame: Any, count: int) -> np.ndarray:
    """uint16 H×W×count, one plane after the other in memory: that is how they are worked on."""
    planes = np.empty((count, frame.height, frame.width), np.uint16)
    for out, plane in zip(planes, frame.planes, strict=False):
        out[:] = np.frombuffer(plane, "<u2").reshape(plane.height, plane.line_size // 2)[:, : plane.width]
    return planes.transpose(1, 2, 0)


@cache
def _white(name: str) -> int:
    """The 16-bit luma that swscale makes of white in full range: that of a shift, or 65535, by the format."""
    white = np.full((16, 16, 3), (65535, 32768, 32768), np.uint16)
    frame = av.VideoFrame.from_ndarray(white, format="yuv444p16le")
    for there in (name, "yuv444p16le"):
        how: dict[str, Any] = {"src_color_range": _FULL, "dst_color_range": _FULL, "interpolation": "BICUBIC"}
        frame = frame.reformat(format=there, threads=1, **how)
    return int(frame.to_ndarray()[8, 8, 0])


def _is_rgb(form: Any) -> bool:
    return form.is_rgb or form.has_palette


def _is_grey(form: Any) -> bool:
    return sum(not component.is_alpha for component in form.components) == 1 and not _is_rgb(form)


def has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def alpha_of(frame: Any) -> np.ndarray:
    """float32 H×W in [0, 1]; the alpha of video is in full range."""
    deep = frame.format.components[-1].bits > 8
    if frame.format.is_rgb:
        codes = frame.reformat(format="rgba64le" if deep else "rgba", threads=1).to_ndarray()[..., 3]
        return codes.astype(np.float32) / np.float32(65535 if deep else 255)
    if len(frame.planes) < 4:  # interleaved
        frame = frame.reformat(format="yuva444p16le" if deep else "yuva444p", threads=1)
    # The plane itself: swscale would scale some depths to 65535 and others to less.
    plane, bits = frame.planes[3], frame.format.components[3].bits
    kind = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return rows[:, : plane.width].astype(np.float32) / np.float32(2**bits - 1)


def side_data(frame: Any, kind: Type) -> bytes:
    """What FFmpeg attaches to a frame; empty where there is none of this kind."""
    data = SideDataContainer(frame).get(kind)  # type: ignore[call-arg]
    return b"" if data is None else bytes(data)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Signs of a, b, c, d of the display matrix: x′ = a·x + c·y, y′ = b·x + d·y (ISO 14496-12, 6.2.2)."""
    data = side_data(frame, Type.DISPLAYMATRIX)
    if not data:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("<9i", data[:36])
    if abs(a) >= abs(b):
        return -1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1
    return 0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0


def upright(picture: np.ndarray, frame: Any) -> np.ndarray:
    """As displayed: quarter turns and mirrors of the display matrix applied. A view of the picture."""
    a, b, c, d = display_matrix(frame)
    if a == 0:
        picture, across, down = picture.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
