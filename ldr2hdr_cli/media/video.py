"""Clips: what they are, and their frames one by one, of whatever FFmpeg decodes."""

import os
import re
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type

from ldr2hdr_cli.media.colour import CAMERA_CURVE, PRIMARIES, TRANSFERS
from ldr2hdr_cli.media.decode import ERRORS, Damage, Unsure, opened, pictures, reason
from ldr2hdr_cli.media.limits import MAX_PIXELS, check_size
from ldr2hdr_cli.media.metadata import of_clip
from ldr2hdr_cli.media.rgb import (
    LUMA,
    alpha_of,
    codes_of,
    coding_of,
    display_matrix,
    first_specified,
    has_alpha,
    side_data,
    upright,
)
from ldr2hdr_cli.media.source_info import HDR_NOTES, Frame, SourceInfo, mastering_display, refuse_hdr
from ldr2hdr_cli.media.timecode import advance
from model.errors import Ldr2hdrError

# FFmpeg's numbers are those of ITU-T H.273.
_HDR = (16, 18)
# Configurations of what stands beside the base layer: Dolby Vision's, and a second view's (MV-HEVC, Apple's vexu).
_LAYERS = {
    re.compile(rb"dv[cv]C[\x01\x02]\0"): "it carries Dolby Vision: its base layer is converted, without that metadata.",
    re.compile(rb"lhvC\x01|vexu....eyes", re.DOTALL): "it holds a second view (MV-HEVC): the first one is converted.",
}
_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: a bare stream, whose average rate is FFmpeg's own default
_MOST_GUESSED = 480  # frames a second: FFmpeg tries none above; what it gives then is the unit of the time stamps
# The field order of a stream: which field is shown first. Frames may say it themselves.
_PARITY = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}


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
    hwaccel: str = "none",
    from_hdr: bool = False,
) -> Iterator[Frame]:
    """The frames of a clip in the order of presentation, one at a time.

    first, last: indices from 0, inclusive. start_number: of index 0, in what an error or a note says. hwaccel: see
    `decode.opened`. A frame that is damaged, or may have been spoiled by one that is, is left out; when all others have
    been given, Ldr2hdrError names those. from_hdr: PQ and HLG are read too. A change to or from them on the way ends
    the clip with an Ldr2hdrError.
    """
    how = (path, first, last, every, deinterlace, max_pixels, start_number, hwaccel, from_hdr)
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
    hwaccel: str,
    from_hdr: bool,
    start: int,
) -> Iterator[Frame]:
    """As read_frames. start: the first frame that must be as if all had been decoded."""
    damage = Damage(start_number)
    final = None if last is None else last - (last - first) % every
    with opened(path, max_pixels, hwaccel) as (container, stream):
        decoded = pictures(path, container, stream, damage, max_pixels, start)
        if deinterlace:
            decoded = _deinterlaced(path, decoded, stream)
        info: SourceInfo | None = None
        look: _Look | None = None
        for index, picture in decoded:
            if index >= first and (index - first) % every == 0:
                if picture is None:
                    damage.lost.append(index)
                else:
                    check_size(path, picture.width, picture.height, max_pixels)
                    if info is None:
                        info = _source_info(path, container, stream, picture, deinterlace)
                        refuse_hdr(info, from_hdr)
                    frame = _frame(info, picture, index, stream)
                    before, look = look, _look(stream, picture, frame)
                    if before is not None and look != before:
                        frame.note = _change(path, before, look, index + start_number, deinterlace)
                    yield frame
            if final is not None and index >= final:
                break
    if sentence := damage.sentence():
        raise Ldr2hdrError(f"{path} is damaged: {sentence}; all other frames are good.")


@dataclass(frozen=True)
class _Look:
    """What should be the same from frame to frame, and need not be."""

    size: str
    turn: tuple[int, ...]
    interlaced: bool
    transfer: str


def _look(stream: Any, picture: Any, frame: Frame) -> _Look:
    height, width = frame.codes.shape
    number = first_specified(picture.color_trc, stream.codec_context.color_trc)
    transfer = TRANSFERS[number][0] if number in TRANSFERS else "unspecified"
    return _Look(f"{width}×{height}", display_matrix(picture), bool(picture.interlaced_frame), transfer)


def _change(path: Path, before: _Look, now: _Look, number: int, deinterlace: bool) -> str:
    """A note about a frame that is not like the one before it. Raises Ldr2hdrError between SDR and HDR."""
    if before.transfer != now.transfer and {before.transfer, now.transfer} & {"pq", "hlg"}:
        raise Ldr2hdrError(
            f"{path} changes from {before.transfer} to {now.transfer} at frame {number}; convert each part by itself "
            "with --frames."
        )
    changes = []
    if before.size != now.size:
        changes.append(f"its pictures are {now.size}, no longer {before.size}")
    if before.turn != now.turn:
        changes.append("they are turned another way")
    if now.interlaced and not before.interlaced and not deinterlace:
        changes.append("its frames are interlaced; --deinterlace makes them progressive")
    return f"from frame {number} on, {'; '.join(changes)}." if changes else ""


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
    transfer = first_specified(context.color_trc, frame.color_trc)
    coding, notes = coding_of(context, frame)
    primaries = first_specified(context.color_primaries, frame.color_primaries)
    name, chromaticities = PRIMARIES.get(primaries, PRIMARIES[9 if transfer in _HDR else 1])  # BT.2100 has no others
    transfer_name, encoding = TRANSFERS.get(transfer, ("unspecified", CAMERA_CURVE))
    named = {"primaries": primaries in PRIMARIES, "transfer": transfer in TRANSFERS}
    is_hdr = transfer in _HDR
    if is_hdr:
        notes.append(HDR_NOTES[transfer_name])
    notes += _layers(path)
    interlaced = bool(frame.interlaced_frame) or context.field_order in _PARITY
    if interlaced and not deinterlace:
        notes.append("its frames are interlaced; --deinterlace makes them progressive.")
    turned = display_matrix(frame)[0] == 0
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
        seconds=container.duration / 1e6 if container.duration else None,
        timecode=_timecode(container),
        has_alpha=has_alpha(frame),
        interlaced=interlaced,
        notes=tuple(notes),
        codec=context.name,
        matrix=LUMA[coding.matrix][0] if coding.matrix in LUMA else "rgb",
        full_range=coding.full_range,
        transfer=transfer_name,
        encoding=encoding,
        metadata=of_clip({**container.metadata, **stream.metadata}),
        assumed=tuple(what for what, is_named in named.items() if not is_named),
        is_hdr=is_hdr,
        **_light_levels(frame),
    )


def _layers(path: Path) -> list[str]:
    """Notes about layers that are not read; FFmpeg decodes the base layer alone. By the headers at either end."""
    with path.open("rb") as file:
        data = file.read(2**20)
        file.seek(max(file.seek(0, os.SEEK_END) - 2**22, len(data)))
        data += file.read()
    return [note for pattern, note in _LAYERS.items() if pattern.search(data)]


def _light_levels(frame: Any) -> dict[str, Any]:
    """Of SMPTE ST 2086 and CTA-861.3, as FFmpeg's structures hold them; nothing where they are not given."""
    levels: dict[str, Any] = {}
    data = side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    if len(data) >= 88:
        *ratios, has_primaries, has_luminance = struct.unpack("22i", data[:88])
        values = [above / below if below else 0.0 for above, below in zip(*[iter(ratios)] * 2, strict=True)]
        if has_primaries and has_luminance:
            points = list(zip(values[0:8:2], values[1:8:2], strict=True))
            levels["mastering_display"] = mastering_display(points, *values[8:10])
    data = side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    if len(data) >= 8:
        levels["max_cll"], levels["max_fall"] = struct.unpack("2I", data[:8])
    return levels


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


def _frame(info: SourceInfo, frame: Any, index: int, stream: Any) -> Frame:
    coding, _ = coding_of(stream.codec_context, frame)
    try:
        codes = codes_of(frame, coding)
        alpha = alpha_of(frame) if has_alpha(frame) else None
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
        replace(codes, values=upright(codes.values, frame)),
        alpha=None if alpha is None else np.ascontiguousarray(upright(alpha, frame)),
        index=index,
        seconds=None if frame.time is None else float(frame.time),
        timecode=timecode,
    )


def _timecode(container: Any) -> str | None:
    tags = (tag for holder in (*container.streams, container) for tag in holder.metadata.items())
    text = next((value for name, value in tags if name.lower() == "timecode"), None)  # Matroska says TIMECODE
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
