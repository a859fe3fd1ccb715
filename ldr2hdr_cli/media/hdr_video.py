"""HDR video that televisions, phones and editors play: HDR10, HLG, and ProRes 4444 in PQ.

A clip is encoded in segments, each a file of its own that begins with a key frame and depends on no other, so that a
run that was ended goes on with the next one, to the same bytes. `join` then makes one file of them: frame times, sound,
subtitles, chapters and time code are those of the source, and the light levels are those that were measured.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
import cv2
import numpy as np
from av.error import FFmpegError

from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.decode import TAGS
from ldr2hdr_cli.media.display_light import LUMA_2020, DisplayLight, hlg, pq, strongest_channel, to_rec2020
from ldr2hdr_cli.media.light_levels import LightLevels, mark
from ldr2hdr_cli.media.mp4 import add_light_levels, boxes
from model.atomic import replace_atomically
from model.errors import Ldr2hdrError

SEGMENT = 96  # frames
SMALLEST = 64  # pixels a side; libx265 ends the whole process over a smaller picture, a block of its own high
KEY_INTERVAL = 48  # frames: how far a player seeks
VideoFormat = Literal["hdr10", "hlg", "prores"]
_BT2020, _PQ, _HLG, _NCL, _LIMITED = 9, 16, 18, 9, 1  # ITU-T H.273; the last by FFmpeg's count
_REORDERING = 16  # frames: the most that H.265 allows
_RECORD = b"ldr2hdr"  # begins the box at a segment's end


@dataclass(frozen=True)
class VideoSettings:
    """How a clip is encoded; all of it decides the bytes.

    codec: FFmpeg's name of an HEVC or AV1 encoder, in software or hardware; ProRes has its own. crf: constant quality,
    lower is better; 0 is lossless with libx265 and libsvtav1. preset: of the encoder; None for its default.
    light: how bright it is shown. chromaticities: of the linear frames that are given.
    """

    format: VideoFormat = "hdr10"
    codec: str = "libx265"
    crf: float = 16.0
    preset: str | None = None
    light: DisplayLight = field(default_factory=DisplayLight)
    chromaticities: tuple[float, ...] = REC709
    rate: Fraction = Fraction(25)
    pixel_aspect: Fraction = Fraction(1)

    @property
    def encoder(self) -> str:
        return "prores_ks" if self.format == "prores" else self.codec

    @property
    def pixels(self) -> str:
        """FFmpeg's name of the layout: 10 bits, 4:2:0 for players and 4:4:4 for editors."""
        return "yuv444p10le" if self.format == "prores" else "yuv420p10le"


@dataclass(frozen=True)
class Picture:
    """One frame as code values. planes: uint16 Y, Cb, Cr. peak, average: cd/m² of max(R, G, B) over its pixels."""

    planes: tuple[np.ndarray, ...]
    peak: float
    average: float


@dataclass
class Record:
    """What a segment knows of itself, kept at the end of its file.

    seconds: each frame's time stamp in the source, in the order of presentation; None where the source has none.
    order: the frames' places in the segment, in the order of decoding.
    """

    seconds: list[float | None] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    peak: float = 0.0  # cd/m²: CTA-861.3's MaxCLL of the segment, and its MaxFALL
    average: float = 0.0


def picture(linear: np.ndarray, settings: VideoSettings) -> Picture:
    """H×W×3 float32 linear pixels, LDR white = 1.0, as code values; may be called in any thread.

    An odd width or height is made even by repeating the last column or row, where chroma has half the resolution.
    """
    nits = settings.light.nits(linear, to_rec2020(settings.chromaticities))
    strongest = strongest_channel(nits)
    signal = hlg(nits, settings.light.peak) if settings.format == "hlg" else pq(nits)
    planes = _limited(signal, is_halved=settings.pixels.startswith("yuv420"))
    return Picture(planes, float(strongest.max()), float(strongest.mean(dtype=np.float64)))


def _limited(signal: np.ndarray, is_halved: bool) -> tuple[np.ndarray, ...]:
    """R'G'B' to 10-bit Y'CbCr of limited range: ITU-R BT.2100-2, tables 6 and 9, non-constant luminance."""
    red, green, blue = (np.float32(weight) for weight in LUMA_2020)
    if is_halved and (signal.shape[0] % 2 or signal.shape[1] % 2):
        odd = signal.shape[0] % 2, signal.shape[1] % 2
        signal = cv2.copyMakeBorder(signal, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
    luma = signal[..., 0] * red + signal[..., 1] * green + signal[..., 2] * blue
    chroma: list[np.ndarray] = [(signal[..., 2] - luma) / (2 * (1 - blue)), (signal[..., 0] - luma) / (2 * (1 - red))]
    if is_halved:
        # Sited with the upper left of four pixels, as BT.2100's table 6 has it: the filter has its middle there.
        kernel = np.array([0.25, 0.5, 0.25], np.float32)
        chroma = [np.asarray(cv2.sepFilter2D(plane, -1, kernel, kernel)[::2, ::2], np.float32) for plane in chroma]
    scaled = [(219 * luma + 16) * 4, *[(224 * plane + 128) * 4 for plane in chroma]]
    return tuple(np.rint(plane).astype(np.uint16) for plane in scaled)


def write_segment(path: Path, pictures: Iterable[tuple[Picture, float | None]], settings: VideoSettings) -> Record:
    """Encode some frames of a clip, in the order of presentation, with their times in seconds; atomically.

    `pictures` is read while it encodes, so it may wait for frames that are still made. Raises Ldr2hdrError.
    """
    record = Record()

    def write(file: BinaryIO) -> None:
        with av.open(file, "w", format="mov" if settings.format == "prores" else "mp4") as container:
            stream: Any = None
            for index, (one, seconds) in enumerate(pictures):
                if stream is None:
                    stream = _stream(container, one, settings)
                record.seconds.append(seconds)
                record.peak, record.average = max(record.peak, one.peak), max(record.average, one.average)
                _mux(container, stream, _frame(one, index, stream, settings), record, settings)
            if stream is None:
                raise Ldr2hdrError(f"{path} would have no frame.")
            _mux(container, stream, None, record, settings)
        payload = _RECORD + json.dumps(vars(record)).encode()
        file.write(struct.pack(">I4s", 8 + len(payload), b"free") + payload)

    try:
        replace_atomically(path, write)
    except FFmpegError as error:
        raise Ldr2hdrError(
            f"{path} cannot be encoded by {settings.encoder} ({error.strerror}); try another --codec."
        ) from None
    return record


def _stream(container: Any, first: Picture, settings: VideoSettings) -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # errors alone; it would write a page into the terminal
    av.logging.set_level(None)
    try:
        stream = container.add_stream(settings.encoder, rate=settings.rate, options=_options(settings))
    except (FFmpegError, ValueError):
        raise Ldr2hdrError(f"--codec {settings.encoder}: this FFmpeg has no such encoder; leave it out.") from None
    context = stream.codec_context
    stream.height, stream.width = first.planes[0].shape
    if settings.format != "prores" and min(stream.height, stream.width) < SMALLEST:
        raise Ldr2hdrError(
            f"A film of {stream.width}×{stream.height} pixels cannot be encoded, since {settings.encoder} needs "
            f"{SMALLEST} a side; leave {settings.format} out, or choose prores."
        )
    formats = [one.name for one in context.codec.video_formats or []]
    stream.pix_fmt = settings.pixels if settings.pixels in formats else "p010le"  # of the hardware's encoders
    stream.time_base = context.time_base = 1 / settings.rate
    context.sample_aspect_ratio = settings.pixel_aspect
    context.color_primaries, context.colorspace, context.color_range = _BT2020, _NCL, _LIMITED
    context.color_trc = _HLG if settings.format == "hlg" else _PQ
    context.thread_count = 2 if settings.format == "prores" else 0
    return stream


def _options(settings: VideoSettings) -> dict[str, str]:
    if settings.format == "prores":
        return {"profile": "4444", "vendor": "apl0"}
    preset = {"preset": settings.preset} if settings.preset else {}
    is_lossless = settings.crf == 0
    if settings.codec == "libx265":
        # The threads are given, since by themselves they follow the machine and decide the bytes.
        how: dict[str, Any] = {"repeat-headers": 1, "open-gop": 0, "keyint": KEY_INTERVAL, "chromaloc": 2, "info": 0}
        how |= {"frame-threads": 2, "log-level": "none"} | ({"lossless": 1} if is_lossless else {})
        return {"x265-params": _joined(how), "crf": f"{settings.crf:g}", **preset}
    if settings.codec == "libsvtav1":
        how = {"keyint": KEY_INTERVAL, "irefresh-type": 2, "chroma-sample-position": 2}
        how |= {"lossless": 1} if is_lossless else {}
        return {"svtav1-params": _joined(how), "crf": f"{settings.crf:g}", "preset": settings.preset or "8"}
    quality = "global_quality" if settings.codec.endswith("_qsv") else "cq" if "nvenc" in settings.codec else "qp"
    return {quality: f"{settings.crf:g}", "g": str(KEY_INTERVAL), "bf": "0", **preset}


def _joined(options: dict[str, Any]) -> str:
    return ":".join(f"{name}={value}" for name, value in options.items())


def _frame(one: Picture, index: int, stream: Any, settings: VideoSettings) -> Any:
    height, width = one.planes[0].shape
    frame: Any = av.VideoFrame(width, height, settings.pixels)
    for plane, codes in zip(frame.planes, one.planes, strict=True):
        rows = np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)
        rows[:, : plane.width] = codes
    frame.color_primaries, frame.colorspace, frame.color_range = _BT2020, _NCL, _LIMITED
    frame.color_trc = _HLG if settings.format == "hlg" else _PQ
    if stream.pix_fmt != settings.pixels:
        frame = frame.reformat(format=stream.pix_fmt, threads=1)  # more would race, see `rgb._threads`
    frame.pts, frame.time_base = index, 1 / settings.rate
    return frame


def _mux(container: Any, stream: Any, frame: Any, record: Record, settings: VideoSettings) -> None:
    for packet in stream.encode(frame):
        tick = 1 / settings.rate / packet.time_base
        # Not the encoder's: x265 gives none for two frames. `join` gives those of the film.
        packet.dts = round((len(record.order) - _REORDERING) * tick)
        record.order.append(round(packet.pts / tick))
        container.mux(packet)


def read_record(path: Path) -> Record:
    """What `write_segment` returned for this file. Raises Ldr2hdrError where it is not one of its files."""
    try:
        with path.open("rb") as file:
            for name, start, stop in boxes(file, 0, path.stat().st_size):
                if name == b"free" and stop - start > len(_RECORD):
                    file.seek(start)
                    payload = file.read(stop - start)
                    if payload.startswith(_RECORD):
                        return Record(**json.loads(payload[len(_RECORD) :]))
    except (OSError, ValueError, TypeError) as error:
        raise Ldr2hdrError(f"{path} cannot be read ({error}); remove it and run the same command again.") from None
    raise Ldr2hdrError(f"{path} is not a segment of a clip; remove it and run the same command again.")


def join(
    path: Path,
    segments: Sequence[Path],
    settings: VideoSettings,
    source: Path | None = None,
    *,
    is_trimmed: bool = False,
    timecode: str | None = None,
) -> list[str]:
    """One film of consecutive segments, with all that the source has besides its pictures, atomically.

    source: the clip; None for one of numbered pictures, whose frames then follow each other at `settings.rate`.
    is_trimmed: the segments are a part of it, which begins at 0 and has that part's sound. timecode: of
    the first frame. HDR10 and ProRes say their MaxCLL and MaxFALL (CTA-861.3), as measured over all segments, and the
    colour volume they were made for (SMPTE ST 2086): the source's primaries up to `settings.light.peak`.

    Returns what the container cannot hold, as sentences. Raises Ldr2hdrError.
    """
    records = [read_record(segment) for segment in segments]
    light = settings.light
    levels = LightLevels(
        light.peak,
        settings.chromaticities,
        math.ceil(max(record.peak for record in records) - 0.01),
        math.ceil(max(record.average for record in records) - 0.01),
    )
    notes: list[str] = []

    def write(file: BinaryIO) -> None:
        kind = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}[path.suffix.lower()]
        # Neither names nor dates of the muxer, so that equal segments give equal bytes.
        with ExitStack() as stack:
            output: Any = stack.enter_context(av.open(file, "w", format=kind, options={"fflags": "+bitexact"}))
            film = stack.enter_context(_Source.opened(source, settings))
            notes.extend(_assemble(output, film, segments, records, settings, levels, is_trimmed, timecode))
        if kind != "matroska" and settings.format != "hlg":
            file.flush()
            add_light_levels(file, levels)

    try:
        replace_atomically(path, write)
    except FFmpegError as error:
        raise Ldr2hdrError(f"{path} cannot be put together ({error.strerror}); use --format exr.") from None
    return notes


@dataclass
class _Source:
    """The source's streams besides its pictures. container: None where there is none."""

    container: Any
    video: Any
    time_base: Fraction
    offset: Fraction = Fraction(0)  # seconds, taken from all time stamps

    @classmethod
    def opened(cls, path: Path | None, settings: VideoSettings) -> "closing[_Source]":
        if path is None:
            return closing(cls(None, None, 1 / settings.rate))
        try:
            container = av.open(f"file:{path}", **TAGS)
        except (FFmpegError, ValueError, OSError) as error:
            raise Ldr2hdrError(f"{path} cannot be read ({error}).") from None
        start = Fraction(container.start_time or 0, av.time_base)
        video = container.streams.video[0]
        return closing(cls(container, video, Fraction(video.time_base or 1 / settings.rate), max(start, Fraction(0))))

    def close(self) -> None:
        if self.container is not None:
            self.container.close()


def _assemble(
    output: Any,
    film: _Source,
    segments: Sequence[Path],
    records: Sequence[Record],
    settings: VideoSettings,
    levels: LightLevels,
    is_trimmed: bool,
    timecode: str | None,
) -> list[str]:
    times = _times(records, film, settings)
    if is_trimmed:
        film.offset += times[0] * film.time_base
        times = [time - times[0] for time in times]
    durations = [later - time for time, later in pairwise(times)]
    durations.append(durations[-1] if durations else round(1 / settings.rate / film.time_base))
    end = (times[-1] + durations[-1]) * film.time_base
    with closing(av.open(str(segments[0]))) as first:
        stream = output.add_stream_from_template(first.streams.video[0], opaque=True)  # not all decoders encode
    if output.format.name != "matroska":  # ProRes 4444; and for HEVC what Apple's players look for
        tag = {"prores": "ap4h", "hevc": "hvc1"}.get(stream.codec_context.codec.canonical_name)
        stream.codec_context.codec_tag = tag or stream.codec_context.codec_tag
    stream.time_base, stream.codec_context.framerate = film.time_base, settings.rate  # a time code counts by the rate
    copied, notes = _copied(output, film)
    _describe(output, stream, film, end, timecode)
    pictures = _pictures(segments, records, times, durations, film.time_base, stream, settings, levels)
    for packet in _interleaved(pictures, _others(film, copied, end, is_trimmed)):
        output.mux_one(packet)
    return notes


def _times(records: Sequence[Record], film: _Source, settings: VideoSettings) -> list[int]:
    """Of every frame, in units of the source's time base; each after the one before."""
    times: list[int] = []
    for seconds in (seconds for record in records for seconds in record.seconds):
        if seconds is None or film.container is None:
            time = round(len(times) / settings.rate / film.time_base)
        else:
            time = round((Fraction(seconds) - film.offset) / film.time_base)
        times.append(max(time, times[-1] + 1) if times else time)
    return times


def _copied(output: Any, film: _Source) -> tuple[dict[int, Any], list[str]]:
    """The output's stream for each of the source's that its container can hold, and notes of the others."""
    copied: dict[int, Any] = {}
    notes: list[str] = []
    if film.container is None:
        return copied, notes
    for stream in film.container.streams:
        if stream.type not in ("audio", "subtitle", "attachment"):
            continue
        name = stream.codec_context.codec.canonical_name if stream.codec_context else stream.name
        if stream.type != "attachment" and name not in output.supported_codecs:
            notes.append(f"its {stream.type} in {name} cannot be stored in {output.format.name}: left out.")
            continue
        try:
            made = output.add_stream_from_template(stream)
        except (FFmpegError, ValueError, RuntimeError, NotImplementedError):
            notes.append(f"its {stream.type} in {name} cannot be copied: left out.")
            continue
        made.metadata.update(_kept(stream.metadata))
        if stream.type != "attachment":
            made.disposition = stream.disposition
            made.time_base = stream.time_base
        copied[stream.index] = made
    return copied, notes


_OF_THE_CONTAINER = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "timecode",
    "duration",
    "vendor_id",
}


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name.lower() not in _OF_THE_CONTAINER}


def _describe(output: Any, stream: Any, film: _Source, end: Fraction, timecode: str | None) -> None:
    """Title, place and date, time code, chapters."""
    if film.container is not None:
        output.metadata.update(_kept(film.container.metadata))
        stream.metadata.update(_kept(film.video.metadata))
        chapters = []
        for chapter in film.container.chapters():
            base = Fraction(chapter["time_base"])
            start, stop = (Fraction(chapter[name]) * base - film.offset for name in ("start", "end"))
            if start < end and stop > 0:
                chapters.append({**chapter, "start": round(max(start, Fraction(0)) / base), "end": round(stop / base)})
        output.set_chapters(chapters)
    if timecode:
        (output if output.format.name == "matroska" else stream).metadata["timecode"] = timecode


def _pictures(
    segments: Sequence[Path],
    records: Sequence[Record],
    times: Sequence[int],
    durations: Sequence[int],
    time_base: Fraction,
    stream: Any,
    settings: VideoSettings,
    levels: LightLevels,
) -> Iterator[Any]:
    """The packets of all segments, at the source's times."""
    starts = [sum(len(record.seconds) for record in records[:index]) for index in range(len(records))]
    order = [start + place for start, record in zip(starts, records, strict=True) for place in record.order]
    # Decoding has to begin so much earlier that no frame is shown before it is decoded.
    lead = max(times[place] - times[shown] for place, shown in enumerate(order))
    position = 0
    for segment in segments:
        with closing(av.open(str(segment))) as container:
            for packet in container.demux(container.streams.video[0]):
                if not packet.size:
                    continue
                if packet.is_keyframe and settings.format == "hdr10":
                    packet = mark(packet, stream.codec_context.codec.canonical_name, levels)
                packet.stream, packet.time_base = stream, time_base
                shown = order[position]
                packet.pts, packet.dts = times[shown], times[position] - lead
                packet.duration = durations[shown]
                position += 1
                yield packet


def _others(film: _Source, copied: dict[int, Any], end: Fraction, is_trimmed: bool) -> Iterator[Any]:
    """Packets of sound and subtitles, as they are, at their times."""
    wanted = (
        [film.container.streams[index] for index, made in copied.items() if made.type != "attachment"] if copied else []
    )
    for packet in film.container.demux(wanted) if wanted else ():
        if packet.dts is None and packet.pts is None:
            continue
        base = Fraction(packet.time_base)
        shift = round(film.offset / base)
        start = Fraction(packet.pts if packet.pts is not None else packet.dts) * base - film.offset
        if is_trimmed and (start + (packet.duration or 0) * base <= 0 or start >= end):
            continue
        packet.stream = copied[packet.stream.index]
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        yield packet


def _interleaved(pictures: Iterator[Any], others: Iterator[Any]) -> Iterator[Any]:
    """Both by the time of decoding, so that the muxer has little to hold back."""

    def time(packet: Any) -> Fraction:
        return Fraction(packet.dts if packet.dts is not None else packet.pts) * Fraction(packet.time_base)

    other = next(others, None)
    for packet in pictures:
        while other is not None and time(other) <= time(packet):
            yield other
            other = next(others, None)
        yield packet
    if other is not None:
        yield other
        yield from others
