"""Clips, packet by packet: which packet is which frame, and which frames are whole."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import Container
from av.error import FFmpegError
from av.video.frame import PictureType

from ldr2hdr_cli.media.limits import check_size
from ldr2hdr_cli.media.seek import may_hold_fields, passed_over
from model.errors import Ldr2hdrError

ERRORS = (FFmpegError, ValueError, OSError)
"""What PyAV raises."""

# Tags need not be UTF-8. PyAV escapes what is not from version 19 on, and must be told to before.
TAGS: dict[str, Any] = {"metadata_errors": "surrogateescape"} if hasattr(Container, "metadata_errors") else {}

# Decoders that make one frame of each packet. Others hide frames (VP8) or pack several into one (MPEG-4 in AVI).
_ONE_A_PACKET = frozenset(
    {"h264", "hevc", "mpeg1video", "mpeg2video", "vp9", "av1", "libdav1d", "libaom-av1", "ffv1", "prores", "dnxhd"}
    | {"mjpeg", "jpeg2000", "png", "tiff", "rawvideo", "v210", "v410", "r210", "huffyuv", "ffvhuff", "utvideo"}
    | {"magicyuv", "qtrle", "dvvideo", "cfhd", "hap"}
)
# Those whose packets may hold what later ones need: parameter sets, tables. They can read those and skip the pictures.
_READS_ON = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mjpeg"})
# FFmpeg would read what they name, wherever it lies, and no fingerprint would show when that changes.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "imf", "sdp", "rtsp"})


class Unsure(Exception):
    """Frames from the middle of a clip might differ from those of a decode from its start."""


@dataclass
class Damage:
    """What of a clip is lost: single frames that were wanted; the frame where it breaks off, and why."""

    start_number: int = 0  # of index 0, in the sentence
    lost: list[int] = field(default_factory=list)
    end: int | None = None
    why: str = ""

    def sentence(self) -> str:
        """ "frames 12-17, 30 cannot be decoded; it breaks off before frame 41 (the file is cut short)", or nothing."""
        parts = []
        if self.lost:
            # Consecutive numbers are all as far from their places in the list.
            places = enumerate(index + self.start_number for index in self.lost)
            runs = [[number for _, number in run] for _, run in groupby(places, lambda pair: pair[1] - pair[0])]
            names = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
            parts.append(f"{'frames' if len(self.lost) > 1 else 'frame'} {', '.join(names)} cannot be decoded")
        if self.end is not None:
            parts.append(f"it breaks off before frame {self.end + self.start_number} ({self.why})")
        return "; ".join(parts)


def hardware(asked: str) -> tuple[str, str]:
    """What can decode here of what `--hwaccel` asks for, else "none", and a sentence that says why."""
    if asked == "none":
        return asked, ""
    why = "this FFmpeg has none"
    av.logging.set_level(None)
    for name in hwdevices_available() if asked == "auto" else [asked]:
        try:
            HWAccel(name).create(av.Codec("h264", "r"))
            return name, ""
        except NotImplementedError:
            why = f"this FFmpeg decodes no H.264 with {name}"
        except (*ERRORS, RuntimeError) as error:
            why = reason(error)
    return "none", f"--hwaccel {asked}: no such decoder can be used here ({why}); clips are decoded in software."


@contextmanager
def opened(path: Path, max_pixels: int, hwaccel: str = "none") -> Iterator[tuple[Any, Any]]:
    """A clip's container and its video stream. Raises Ldr2hdrError where there is none to decode.

    hwaccel: one that `hardware` gave; what it cannot decode is decoded in software.
    """
    # A log level, as torchvision sets one when it is imported, has FFmpeg's threads call Python: one that waits for the
    # interpreter lock, while the holder of the lock waits for it to end, hangs for ever.
    av.logging.set_level(None)
    try:
        # `file:` keeps a name such as `concat:a|b` or `-` from being taken for one of FFmpeg's protocols.
        accelerator = None if hwaccel == "none" else HWAccel(hwaccel)
        container = av.open(f"file:{path}", hwaccel=accelerator, **TAGS)
    except ERRORS as error:
        raise Ldr2hdrError(f"{path} cannot be read as a picture or a clip ({reason(error)}).") from None
    with container:
        if _PLAYLISTS & set(container.format.name.split(",")):
            raise Ldr2hdrError(f"{path} is a playlist, which names clips in other files: give those clips themselves.")
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        stream = next(iter(streams), None)
        if (
            stream is not None and stream.frames == 1
        ):  # the cover of an image sequence (HEIF, AVIF) is an item before it
            stream = max(streams, key=lambda one: one.frames)
        if stream is None:
            raise Ldr2hdrError(f"{path} holds no picture, only sound or data; give a clip with a video stream.")
        if not stream.codec_context:
            raise Ldr2hdrError(f"{path} is coded in a way that this FFmpeg cannot decode.")
        check_size(path, stream.width, stream.height, max_pixels)
        stream.thread_type = "AUTO"
        # A size that grows on the way is refused before its memory is taken; coded sizes have margins, hence the slack.
        stream.codec_context.options = {"max_pixels": str(2 * max_pixels + 2**16)}
        yield container, stream


def _is_cover(stream: Any) -> bool:
    """Cover art of a sound file: not a clip."""
    return bool(int(stream.disposition) & int(av.stream.Disposition.attached_pic))


def pictures(
    path: Path, container: Any, stream: Any, damage: Damage, max_pixels: int, first: int = 0
) -> Iterator[tuple[int, Any]]:
    """(index, picture) in the order of presentation; None for one that is lost.

    first: of those before it nothing is certain, neither that they are there nor that they are right. Raises Unsure,
    before it gives `first`, where that could make a difference to the others. Of what is passed over, damage is not
    noticed, even where it would have ended a decode from the start.
    """
    context = stream.codec_context
    order = _Presentation(context)
    end = 0
    why = ""
    try:
        for packet, is_passed in passed_over(_packets(container, stream), first, order.may_resume):
            if is_passed != order.is_passing:
                order.turn(context)
            if packet.size:
                order.send(packet)
                end = max(end, (packet.pts or packet.dts or 0) + max(packet.duration or 0, 1))
            elif packet.pts is not None:  # "as before": a decoder would take it for the end
                continue
            try:
                if not is_passed or context.name in _READS_ON:
                    for picture in packet.decode():
                        order.show(picture)
            except ERRORS as error:
                if not 0 < context.width * context.height <= max_pixels:  # 0: of a size that was refused
                    why = "it grows to more pixels than --max-pixels allows"
                elif not order.is_known:  # where it is, the frame will be missed in its place
                    why = reason(error)
            yield from order.certain(order.ready(), first)
            if why or order.is_lost:
                why = why or "a damaged frame"
                break
        else:
            why = "the file is cut short" if _is_cut(path, container, stream, end) else ""
    except ERRORS as error:  # of the container, or of the disk
        why = reason(error)
    rest = list(order.certain(order.ready(is_end=True), first))
    if not order.is_sure:
        raise Unsure
    while why and rest and rest[-1][1] is None:
        order.index, _ = rest.pop()
    yield from rest
    if why:
        damage.end, damage.why = order.index, why


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """All of the stream, and an empty one at the end."""
    is_end = False
    try:
        for packet in container.demux(stream):
            is_end = not packet.size and packet.pts is None
            yield packet
    except IndexError:  # PyAV knows only the streams that were there when it began
        if not is_end:
            raise ValueError("another stream begins on the way") from None


@dataclass
class _Slot:
    """A packet, and the frame it became. number: in the order of decoding."""

    number: int
    pts: int
    is_key: bool = False
    is_corrupt: bool = False
    is_passed: bool = False  # not decoded, because it is not wanted
    picture: Any = None


class _Presentation:
    """Numbers frames, and holds each one back until it is known to be good.

    Where each packet makes one frame, a packet whose frame never comes is a frame lost, and all others keep their
    numbers. A lost or damaged frame may spoil those that were decoded after it, up to a key frame, and some of those
    are shown before it: hence a frame waits until all that were decoded before it are there. Of other streams frames
    are only counted, and nothing is certain after the first damage.
    """

    def __init__(self, context: Any) -> None:
        self.is_known = context.name in _ONE_A_PACKET
        self.is_lost = False  # damaged where order is not known
        self.index = 0  # of the next frame
        self.is_passing = False  # over packets that need not be decoded
        self.is_sure = True  # that frames are as they would be had none been passed over
        self._may_be_fields = context.name == "h264"  # two packets make one frame
        extradata = context.extradata or b""
        self._has_fields = self._may_be_fields and may_hold_fields(extradata, extradata)
        self._patience = 16 + (context.thread_count or 16)  # packets: the longest reordering, and a frame a thread
        self._sent = 0
        self._time = -(2**63)  # of decoding
        self._shown = -(2**63)  # the last time stamp
        self._slots: dict[int, _Slot] = {}  # by time stamp
        self._counted: deque[Any] = deque()  # where order is not known
        self._first_key = 2**63  # the first time stamp of a key frame
        self._has_begun = False
        self._is_seen = False  # a good picture, so all is known that hangs on the first one
        self._key = _Slot(0, -(2**63))  # the last one shown
        self._damaged: list[_Slot] = []
        self._resumed = 0  # the number of the last packet passed over
        self._keys = 0  # shown since then

    def may_resume(self) -> bool:
        """Whether packets may be passed over from here on: the first frames are numbered, and one a packet."""
        return self.is_known and self._is_seen and not self._has_fields

    def turn(self, context: Any) -> None:
        """To be called before the first packet that is passed over, and again before the next that is not."""
        self.is_passing = not self.is_passing
        if self.is_passing:
            self.is_sure = False
            for slot in self._slots.values():
                slot.is_passed = slot.picture is None
        else:
            self._resumed = self._sent
            context.flush_buffers()
        context.skip_frame = "ALL" if self.is_passing else "DEFAULT"

    def certain(self, frames: Iterator[tuple[int, Any]], first: int) -> Iterator[tuple[int, Any]]:
        """The same; raises Unsure at `first` and after it, unless all is as if it had been decoded from the start."""
        for index, picture in frames:
            if index >= first and not self.is_sure:
                raise Unsure
            yield index, picture

    def send(self, packet: Any) -> None:
        """To be called with each packet before it is decoded."""
        self._sent += 1
        if packet.is_discard or not self.is_known:
            return
        time = self._time if packet.dts is None else packet.dts
        if packet.pts is None or packet.pts in self._slots or time < self._time:
            self._lose_track()
            return
        if not self.is_sure and packet.pts <= self._shown:  # too late, or twice: what is passed over never waits
            raise Unsure
        self._time = time
        if packet.is_keyframe and self._first_key == 2**63:
            self._first_key = packet.pts
        is_corrupt = bool(packet.is_corrupt) and not self.is_passing
        self._slots[packet.pts] = _Slot(self._sent, packet.pts, bool(packet.is_keyframe), is_corrupt, self.is_passing)

    def show(self, picture: Any) -> None:
        """To be called with each frame that the decoder gives."""
        if self.is_passing:
            return
        slot = self._slots.get(picture.pts)
        if slot is None or (self._may_be_fields and picture.interlaced_frame):
            self._lose_track()
        if slot is not None and self.is_known:
            slot.picture = picture
            slot.is_corrupt |= bool(picture.is_corrupt)
        else:
            self.is_lost |= bool(picture.is_corrupt)
            if not self.is_lost:
                self._counted.append(picture)

    def ready(self, is_end: bool = False) -> Iterator[tuple[int, Any]]:
        """The frames of which it is known whether they are good; None for those that are not."""
        while self._counted:
            yield self._take_index(), self._counted.popleft()
        while self._slots:
            slot = self._slots[min(self._slots)]
            waited = (other for other in self._slots.values() if not other.is_passed)
            missing = [other for other in waited if other.picture is None and other.number <= slot.number]
            is_early = slot.pts > self._time > -(2**63)  # another may come that is shown before it
            if not is_end and (is_early or any(self._sent - other.number <= self._patience for other in missing)):
                return
            del self._slots[slot.pts]
            if slot.picture is None and not self._has_begun and slot.pts < self._first_key:
                continue  # the first pictures of a clip that begins in the middle of something never counted
            self._has_begun = True
            self._shown = slot.pts
            picture = None if slot.is_passed else self._good(slot, missing)
            self._is_seen |= picture is not None
            yield self._take_index(), picture

    def _good(self, slot: _Slot, missing: list[_Slot]) -> Any:
        """The picture, if it is there and nothing it depends on is damaged."""
        # A P may begin a gradual refresh: no frame to begin with.
        if slot.is_key and slot.picture is not None and slot.picture.pict_type in (PictureType.NONE, PictureType.I):
            self._key = slot
            self._damaged = [damaged for damaged in self._damaged if damaged.pts > slot.pts]
            self._prove(slot)
        if slot.picture is None or slot.is_corrupt:
            self._damaged.append(slot)
        waiting = (other for other in self._slots.values() if other.is_corrupt)
        is_spoiled = any(
            self._key.number <= damaged.number <= slot.number and damaged.pts >= self._key.pts
            for damaged in (*self._damaged, *missing, *waiting)
        )
        return None if is_spoiled else slot.picture

    def _prove(self, slot: _Slot) -> None:
        """Two whole key frames, shown one after the other: nothing before them reaches beyond the second."""
        if not self.is_sure and slot.number > self._resumed > 0 and slot.picture.key_frame and not slot.is_corrupt:
            self._keys += 1
            self.is_sure = self._keys >= 2 and not self._damaged

    def _take_index(self) -> int:
        self.index += 1
        return self.index - 1

    def _lose_track(self) -> None:
        self.is_known = False
        self._counted.extend(slot.picture for _, slot in sorted(self._slots.items()) if slot.picture is not None)
        self._slots.clear()


def _is_cut(path: Path, container: Any, stream: Any, end: int) -> bool:
    """Whether a stream ends before its container says. end: of its last packet, in units of its time base."""
    if container.format.name in ("avi", "mxf"):
        return end < (stream.duration or 0)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if "matroska" in container.format.name:
            return _segment_end(file) > size
        return "mov" in container.format.name and _media_end(file, size) > size


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file says that it ends; 0 where it does not (RFC 8794, 4 and 6)."""

    def number() -> int:
        start = int.from_bytes(file.read(1), "big")
        length = 9 - start.bit_length()  # leading zeros say how many bytes follow
        value = int.from_bytes(bytes([start & (0xFF >> length)]) + file.read(length - 1), "big")
        return 0 if value == 2 ** (7 * length) - 1 else value

    file.seek(4)
    file.seek(number(), os.SEEK_CUR)
    if file.read(4) != bytes.fromhex("18538067"):
        return 0
    length = number()
    return file.tell() + length if length else 0


def _media_end(file: BinaryIO, size: int) -> int:
    """Where the last piece of media of an MP4 or MOV says that it ends (ISO 14496-12, 4.2)."""
    at = end = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        length = int.from_bytes(file.read(8), "big") if length == 1 else length or size - at
        if length < 8:
            break
        at += length
        end = at if kind in (b"mdat", b"moof") else end
    return end


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
