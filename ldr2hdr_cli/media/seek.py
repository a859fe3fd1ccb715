"""Going on in the middle of a clip: which packets need not be decoded, while every frame keeps its number."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from av.error import FFmpegError

_REORDERING = 16  # frames: the longest in H.264 and HEVC
_HELD = 2**28  # bytes of packets in waiting; where groups are longer, decoding begins earlier
# Side data that changes how all later packets are decoded.
_CHANGES = ("new_extradata", "palette", "param_change")
_SPS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
# Profiles of H.264 whose SPS tells of chroma and depth (7.3.2.1.1).
_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


def passed_over(packets: Iterable[Any], first: int, may_begin: Callable[[], bool]) -> Iterator[tuple[Any, bool]]:
    """Each packet, and whether it may be passed over when no frame before `first` is wanted.

    That is everything before the last key frame but one that is shown before `first` for certain: so the pictures that
    are shown before a key frame and predicted from the group before it have that group, and the second key frame
    proves the first. Where in doubt nothing more is passed over. may_begin: asked at each packet, until it says yes.
    """
    held: deque[Any] = deque()
    keys: deque[int] = deque()  # how many packets of the stream come before each key frame that is held
    seen = frames = size = 0
    is_over = False
    try:
        for packet in packets:
            frames += bool(packet.size) and not packet.is_discard
            begins = may_begin()
            is_over = is_over or frames + _REORDERING > first or size > _HELD
            is_over = is_over or _has_fields(packet) or (begins and _is_doubtful(packet))
            if is_over or not begins:
                while held:
                    yield held.popleft(), False
                seen += 1
                yield packet, False
                continue
            if packet.is_keyframe and packet.size and not packet.is_discard:
                keys.append(seen)
                while len(keys) > 2:
                    keys.popleft()
                while len(keys) == 2 and seen - len(held) < keys[0]:
                    size -= held[0].size
                    yield held.popleft(), True
            held.append(packet)
            seen += 1
            size += packet.size
    except (FFmpegError, ValueError, OSError):  # what was read before it is good
        while held:
            yield held.popleft(), False
        raise
    while held:
        yield held.popleft(), False


def _is_doubtful(packet: Any) -> bool:
    """The end, a packet without a time, or one that changes how all later ones are decoded."""
    return packet.pts is None or packet.dts is None or any(packet.has_sidedata(kind) for kind in _CHANGES)


def _has_fields(packet: Any) -> bool:
    context = packet.stream.codec_context
    return context.name == "h264" and may_hold_fields(bytes(packet), context.extradata or b"")


def may_hold_fields(data: bytes, extradata: bytes) -> bool:
    """Whether a parameter set of H.264 in the data lets a packet be one field of a frame, where two make the frame."""
    if data == extradata and data[:1] == b"\1":  # an `avcC` (ISO 14496-15, 5.3.3.1): number, then length, header, set
        starts = [9] if data[5] & 31 == 1 else [len(data)]
    elif extradata[:1] == b"\1":
        starts = list(_after_lengths(data, (extradata[4] & 3) + 1))
    else:
        starts = [match.end() for match in _SPS.finditer(data)]
    return any(not _is_progressive(data[at : at + 64]) for at in starts)


def _after_lengths(data: bytes, width: int) -> Iterator[int]:
    """Where parameter sets are among units that each come after their length in `width` bytes."""
    at = 0
    while at + width < len(data):
        if data[at + width] & 31 == 7:
            yield at + width + 1
        at += width + int.from_bytes(data[at : at + width], "big")


def _is_progressive(data: bytes) -> bool:
    """frame_mbs_only_flag (ITU-T H.264, 7.3.2.1.1); False where that is beyond what is read here."""
    clean = data.replace(b"\0\0\3", b"\0\0")
    bits = "".join(f"{byte:08b}" for byte in clean[3:])
    at = 0

    def read(count: int = 1) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at] or "x", 2) if count else 0  # beyond the end: a ValueError

    def number() -> int:
        """An Exp-Golomb code (9.1), signed ones not resolved."""
        zeros = 0
        while not read():
            zeros += 1
        return (1 << zeros) - 1 + read(zeros)

    try:
        number()  # its id
        if clean[0] in _HIGH:
            if number() == 3:
                read()
            number(), number(), read()  # depths, lossless
            if read():  # scaling lists
                return False
        number()  # of bits of a frame's number
        if (kind := number()) == 0:
            number()
        elif kind == 1:
            read(), number(), number()
            for _ in range(number()):
                number()
        number(), read(), number(), number()  # references, gaps, width, height
        return bool(read())
    except (ValueError, IndexError):
        return False
