"""Clips: whatever FFmpeg decodes, as display-encoded RGB, with the stream's own matrix and range."""

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer, Type

from ldr2hdr_cli.media.colour import P3D65, REC601_525, REC601_625, REC709, REC2020
from ldr2hdr_cli.media.decode import ERRORS, Damage, Unsure, check_size, opened, pictures, reason
from ldr2hdr_cli.media.limits import MAX_PIXELS
from ldr2hdr_cli.media.source_info import Frame, SourceInfo
from ldr2hdr_cli.media.timecode import advance
from model.constants import LUMINANCE
from model.errors import Ldr2hdrError

# FFmpeg's numbers are those of ITU-T H.273. Kr and Kb: the luma weights of red and blue.
_LUMA = {
    1: ("bt709", LUMINANCE[0], LUMINANCE[2]),
    4: ("fcc", 0.30, 0.11),
    5: ("bt470bg", 0.299, 0.114),
    6: ("smpte170m", 0.299, 0.114),
    7: ("smpte240m", 0.212, 0.087),
    9: ("bt2020nc", 0.2627, 0.0593),
}
_PRIMARIES = {
    1: ("bt709", REC709),
    5: ("bt470bg", REC601_625),
    6: ("smpte170m", REC601_525),
    7: ("smpte240m", REC601_525),
    9: ("bt2020", REC2020),
    12: ("p3d65", P3D65),
}
_TRANSFER = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    8: "linear",
    13: "srgb",
    14: "bt2020-10",
    15: "bt2020-12",
}
_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_FULL = 2
_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: a bare stream, whose average rate is FFmpeg's own default
_MOST_GUESSED = 480  # frames a second: FFmpeg tries none above; what it gives then is the unit of the time stamps
# The field order of a stream: which field is shown first. Frames may say it themselves.
_PARITY = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}


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
class _Coding:
    """How the code values of a stream are meant."""

    matrix: int
    full_range: bool
    bits: int


def probe_video(path: Path, deinterlace: bool = False, max_pixels: int = MAX_PIXELS) -> SourceInfo:
    """What a clip is; its first good frame is decoded, because containers err. Raises Ldr2hdrError."""
    damage = Damage()
    with opened(path, max_pixels) as (container, stream):
        decoded = pictures(path, container, stream, damage, max_pixels)
        first = next((picture for _, picture in decoded if picture is not None), None)
        if first is None:
            why = damage.why or "nothing in it can be decoded"
            raise Ldr2hdrError(f"{path} holds no picture ({why}); is it whole?")
        check_size(path, first.width, first.height, max_pixels)
        return _source_info(path, container, stream, first, deinterlace)


def read_frames(
    path: Path,
    *,
    first: int = 0,
    last: int | None = None,
    every: int = 1,
    deinterlace: bool = False,
    max_pixels: int = MAX_PIXELS,
    start_number: int = 0,
) -> Iterator[Frame]:
    """The frames of a clip in the order of presentation, one at a time.

    first, last: indices from 0, inclusive. start_number: of index 0, in what an error says. A frame that is damaged, or
    may have been spoiled by one that is, is left out; when all others have been given, Ldr2hdrError names those.
    """
    how = (path, first, last, every, deinterlace, max_pixels, start_number)
    try:
        yield from _read(*how, start=first - 2 if deinterlace else first)  # a deinterlacer looks at both neighbours
    except Unsure:  # before any frame was given
        yield from _read(*how, start=0)


def _read(
    path: Path,
    first: int,
    last: int | None,
    every: int,
    deinterlace: bool,
    max_pixels: int,
    start_number: int,
    start: int,
) -> Iterator[Frame]:
    """As read_frames. start: the first frame that must be as if all had been decoded."""
    damage = Damage(start_number)
    final = None if last is None else last - (last - first) % every
    with opened(path, max_pixels) as (container, stream):
        decoded = pictures(path, container, stream, damage, max_pixels, start)
        if deinterlace:
            decoded = _deinterlaced(path, decoded, stream)
        info: SourceInfo | None = None
        for index, picture in decoded:
            if index >= first and (index - first) % every == 0:
                if picture is None:
                    damage.lost.append(index)
                else:
                    check_size(path, picture.width, picture.height, max_pixels)
                    info = info or _source_info(path, container, stream, picture, deinterlace)
                    yield _frame(info, picture, index, stream)
            if final is not None and index >= final:
                break
    if sentence := damage.sentence():
        raise Ldr2hdrError(f"{path} is damaged: {sentence}; all other frames are good.")


def _deinterlaced(path: Path, decoded: Iterator[tuple[int, Any]], stream: Any) -> Iterator[tuple[int, Any]]:
    """One progressive picture a frame, by FFmpeg's bwdif, which looks at both neighbours."""
    graph: Graph | None = None
    parity = ""  # by the first picture of the clip, wherever decoding goes on
    indices: deque[int] = deque()
    shape: Any = None

    def ready() -> Iterator[tuple[int, Any]]:
        while graph is not None:
            try:
                picture = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield indices.popleft(), picture

    def finish() -> Iterator[tuple[int, Any]]:
        if graph is not None:
            graph.push(None)
            yield from ready()

    try:
        for index, picture in decoded:
            this = None if picture is None else (picture.width, picture.height, picture.format.name)
            if this != shape:  # a graph keeps the size it was made for, and a lost frame is no neighbour
                yield from finish()
                if picture is not None:
                    parity = parity or _parity(picture, stream)
                graph, shape = None if picture is None else _bwdif(picture, stream, parity), this
            if graph is None:
                yield index, None
            else:
                indices.append(index)
                graph.push(picture)
                yield from ready()
        yield from finish()
    except ERRORS as error:
        raise Ldr2hdrError(f"{path} cannot be deinterlaced ({reason(error)}); try without --deinterlace.") from None


def _parity(picture: Any, stream: Any) -> str:
    return "auto" if picture.interlaced_frame else _PARITY.get(stream.codec_context.field_order, "auto")


def _bwdif(picture: Any, stream: Any, parity: str) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format.name, time_base=stream.time_base
    )
    bwdif = graph.add("bwdif", f"mode=send_frame:parity={parity}:deint=all")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _source_info(path: Path, container: Any, stream: Any, frame: Any, deinterlace: bool) -> SourceInfo:
    context = stream.codec_context
    transfer = _tag(context.color_trc, frame.color_trc)
    if transfer in _HDR:
        raise Ldr2hdrError(
            f"{path} is HDR already: its transfer is {_HDR[transfer]}, nothing in it is clipped that could be "
            "reconstructed; convert it to EXR with a colour-managed tool instead."
        )
    coding, notes = _coding(context, frame)
    primaries = _tag(context.color_primaries, frame.color_primaries)
    name, chromaticities = _PRIMARIES.get(primaries, ("bt709", REC709))
    interlaced = bool(frame.interlaced_frame) or context.field_order in _PARITY
    if interlaced and not deinterlace:
        notes.append("its frames are interlaced; --deinterlace makes them progressive.")
    turned = _matrix(frame)[0] == 0
    aspect = stream.sample_aspect_ratio
    aspect = float(aspect) if aspect else 1.0
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    rate = _frame_rate(container, stream, notes)
    return SourceInfo(
        path=path,
        kind="video",
        width=width,
        height=height,
        bit_depth=coding.bits,
        chromaticities=chromaticities,
        primaries=name,
        pixel_aspect=1 / aspect if turned else aspect,
        frame_rate=rate,
        frame_count=_frame_count(container, stream),
        timecode=_timecode(container),
        has_alpha=_has_alpha(frame),
        interlaced=interlaced,
        notes=tuple(notes),
        codec=context.name,
        matrix=_LUMA[coding.matrix][0] if coding.matrix in _LUMA else "rgb",
        full_range=coding.full_range,
        transfer=_TRANSFER.get(transfer, "unspecified"),
    )


def _frame_rate(container: Any, stream: Any, notes: list[str]) -> Fraction | None:
    """Frames a second: the average of a variable rate, and a note that says so."""
    # Guessed: the lowest rate that has a place for every time stamp. Average: measured in an MP4, claimed elsewhere.
    guessed, average, coded = (
        Fraction(rate) if rate else None
        for rate in (stream.guessed_rate, stream.average_rate, stream.codec_context.framerate)
    )
    if not guessed or not average:  # too few frames; the guess may be the rate of fields
        rate = min((rate for rate in (guessed, average, coded) if rate), default=None)
        if rate is None or rate <= _MOST_GUESSED:
            return rate
        notes.append("its frame rate is variable and its average is not known: framesPerSecond is left out.")
        return None
    tick = float(stream.time_base)
    times = [entry.timestamp * tick for entry in _index(container, stream)]
    slack = max(0.002, 2 * tick)  # seconds: stamps are rounded, to milliseconds in the coarsest containers
    if container.format.flags & _NO_TIMES:
        is_variable = False
    elif len(times) > 1:
        is_variable = any(abs(time - times[0] - n / float(guessed)) > slack for n, time in enumerate(times))
    else:  # 24 for 23.976 is a bad guess, no other rate; and an average above the guess is no average
        is_variable = average < guessed * Fraction(998, 1000)
    if is_variable:
        notes.append(f"its frame rate is variable: framesPerSecond is the average, {float(average):.5g}.")
        return average
    # Matroska rounds n·1000/1001 to nanoseconds, others to 23.976.
    exact = Fraction(1000 * round(guessed * 1001 / 1000), 1001)
    return exact if abs(guessed - exact) < exact / 500_000 else guessed


def _frame_count(container: Any, stream: Any) -> int | None:
    """What the container promises, without what an MP4's edit list leaves out."""
    entries = _index(container, stream) if stream.frames else ()
    return sum(not entry.is_discard for entry in entries) or stream.frames or None


def _index(container: Any, stream: Any) -> Sequence[Any]:
    """Every packet, in the order of decoding, where the container lists them all."""
    return stream.index_entries if "mov" in container.format.name else ()


def _tag(*values: Any) -> int:
    """The first that says something: 2 is "unspecified" in H.273, 0 "reserved"."""
    return next((int(value) for value in values if value is not None and int(value) not in (0, 2)), 2)


def _coding(context: Any, frame: Any) -> tuple[_Coding, list[str]]:
    """Matrix, range and depth, and a note for each that the stream does not name."""
    notes: list[str] = []
    bits = max(component.bits for component in frame.format.components)
    if _is_rgb(frame.format):
        return _Coding(0, True, bits), notes
    grey = _is_grey(frame.format)
    matrix = _tag(context.colorspace, frame.colorspace)
    if matrix == 10:  # constant luminance; FFmpeg itself treats it as the other
        matrix = 9
    if matrix not in _LUMA and not grey:
        matrix = 6 if frame.height <= 576 else 1
        notes.append(f"no matrix is named: {_LUMA[matrix][0]} is assumed, from its height of {frame.height} lines.")
    ranges = [int(value) for value in (context.color_range, frame.color_range) if value is not None and int(value)]
    full = frame.format.name.startswith("yuvj") or bool(ranges and ranges[0] == _FULL)
    if not ranges and not full:
        full = grey
        notes.append(f"no range is named: {'full' if full else 'limited'} is assumed.")
    return _Coding(matrix if matrix in _LUMA else 1, full, bits), notes


def _frame(info: SourceInfo, frame: Any, index: int, stream: Any) -> Frame:
    coding, _ = _coding(stream.codec_context, frame)
    try:
        pixels = _rgb(frame, coding)
        alpha = _alpha(frame) if _has_alpha(frame) else None
    except ERRORS as error:
        raise Ldr2hdrError(
            f"{info.path} is stored as {frame.format.name}, which FFmpeg cannot bring to RGB ({reason(error)}); "
            "convert it to another format first."
        ) from None
    timecode = None
    if info.timecode and info.frame_rate:
        try:
            timecode = advance(info.timecode, index, info.frame_rate)
        except ValueError:  # free text under that name: nothing to count on from
            timecode = None
    return Frame(
        pixels=_turned(pixels, frame),
        alpha=None if alpha is None else _turned(alpha, frame),
        index=index,
        seconds=None if frame.time is None else float(frame.time),
        timecode=timecode,
    )


def _rgb(frame: Any, coding: _Coding) -> np.ndarray:
    """float32 H×W×3 in [0, 1]: chroma brought to full resolution by swscale, the matrix applied here in float."""
    if _is_rgb(frame.format):
        deep = coding.bits > 8
        codes = frame.reformat(format="rgb48le" if deep else "rgb24").to_ndarray()
        return codes.astype(np.float32) / np.float32(65535 if deep else 255)
    # Asked for the range it has, swscale only shifts: code · 2^(16 − bits).
    side = 2 if coding.full_range else 1
    codes = frame.reformat(
        format="yuv444p16le", src_color_range=side, dst_color_range=side, interpolation="BICUBIC"
    ).to_ndarray()
    if coding.full_range:
        scale = 1 / (65535 - 65535 % 2 ** (16 - coding.bits)) if coding.bits < 16 else 1 / 65535
        luma, chroma, black = scale, scale, 0.0
    else:
        luma, chroma, black = 1 / (219 * 256), 1 / (224 * 256), 16 * 256.0
    if _is_grey(frame.format):
        grey = (codes[..., 0].astype(np.float32) - np.float32(black)) * np.float32(luma)
        return np.clip(np.repeat(grey[..., None], 3, 2), 0, 1)
    _, red, blue = _LUMA[coding.matrix]
    green = 1 - red - blue
    to_rgb = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    ) * np.array([luma, chroma, chroma])
    offset = -to_rgb @ np.array([black, 32768.0, 32768.0])
    affine = np.concatenate([to_rgb, offset[:, None]], 1)
    rgb = cv2.transform(codes.astype(np.float32), affine.astype(np.float64))
    return np.clip(rgb, 0, 1, out=rgb)


def _is_rgb(form: Any) -> bool:
    return form.is_rgb or form.has_palette


def _is_grey(form: Any) -> bool:
    return sum(not component.is_alpha for component in form.components) == 1 and not _is_rgb(form)


def _has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _alpha(frame: Any) -> np.ndarray:
    """float32 H×W in [0, 1]; the alpha of video is in full range."""
    deep = frame.format.components[-1].bits > 8
    if frame.format.is_rgb:
        codes = frame.reformat(format="rgba64le" if deep else "rgba").to_ndarray()[..., 3]
        return codes.astype(np.float32) / np.float32(65535 if deep else 255)
    if len(frame.planes) < 4:  # interleaved
        frame = frame.reformat(format="yuva444p16le" if deep else "yuva444p")
    # The plane itself: swscale would scale some depths to 65535 and others to less.
    plane, bits = frame.planes[3], frame.format.components[3].bits
    kind = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return rows[:, : plane.width].astype(np.float32) / np.float32(2**bits - 1)


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Signs of a, b, c, d of the display matrix: x′ = a·x + c·y, y′ = b·x + d·y (ISO 14496-12, 6.2.2)."""
    data = SideDataContainer(frame).get(Type.DISPLAYMATRIX)  # type: ignore[call-arg]
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(data)[:36])
    if abs(a) >= abs(b):
        return -1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1
    return 0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0


def _turned(picture: np.ndarray, frame: Any) -> np.ndarray:
    """As displayed: quarter turns and mirrors of the display matrix applied."""
    a, b, c, d = _matrix(frame)
    if a == 0:
        picture, across, down = picture.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _timecode(container: Any) -> str | None:
    tags = (tag for holder in (*container.streams, container) for tag in holder.metadata.items())
    text = next((value for name, value in tags if name.lower() == "timecode"), None)  # Matroska says TIMECODE
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
