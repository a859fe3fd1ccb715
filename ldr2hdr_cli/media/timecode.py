"""SMPTE timecode (ST 12-1): counting on from a first frame, with and without dropped numbers."""

import re
from fractions import Fraction


def advance(timecode: str, frames: int, rate: Fraction) -> str:
    """The timecode `frames` later.

    timecode: "HH:MM:SS:FF", or with ";" before the frames where numbers are dropped: the first two (at 59.94 the first
    four) of every minute but each tenth, which only multiples of 30 do. rate: frames a second. Goes on at 00:00:00:00
    after a day. Raises ValueError for anything else, and for a rate of less than a frame a second.
    """
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d\d+)", timecode.strip())
    if not found:
        raise ValueError(f"{timecode!r} is not a timecode")
    hours, minutes, seconds, frame = (int(found[group]) for group in (1, 2, 3, 5))
    base = round(rate)
    if base < 1:
        raise ValueError(f"no timecode counts {rate} frames a second")
    drop = found[4] in ";." and base % 30 == 0
    dropped = 2 * round(base / 30) if drop else 0
    number = ((hours * 60 + minutes) * 60 + seconds) * base + frame
    number -= dropped * (hours * 60 + minutes - (hours * 60 + minutes) // 10)
    ten_minutes, minute = 600 * base - 9 * dropped, 60 * base - dropped
    number = (number + frames) % (144 * ten_minutes)
    tens, rest = divmod(number, ten_minutes)
    # In each ten minutes the first one has all its numbers.
    number += dropped * (9 * tens + (max(rest - dropped, 0) // minute if dropped else 0))
    seconds, frame = divmod(number, base)
    mark = ";" if drop else ":"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{frame:02d}"
