"""What options take: lengths, frame rates, amounts of memory, patterns of names, read or refused by a sentence."""

import os
import re
import string
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from ldr2hdr_cli.media.formats import FILMS, SUFFIXES
from model.errors import Ldr2hdrError


def as_text(value: Any, _shown: str) -> Any:
    """A number, as YAML reads `fps: 25`, is the same as its text."""
    return str(value) if isinstance(value, int | float | Fraction) and not isinstance(value, bool) else value


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encoder_threads(asked: str) -> int:
    """`--encoders` as a number."""
    return max(2, min(cores(), 16)) if asked == "auto" else int(asked)


def count(*words: str, what: str = "pixels") -> Callable[[Any, str], Any]:
    """Reads a number of pixels, or of something else, or one of `words`."""

    def read(value: Any, shown: str) -> Any:
        text = as_text(value, shown)
        # `isdigit` would take ² for a number.
        if text in words or (isinstance(text, str) and re.fullmatch(r"0*[1-9][0-9]{0,8}", text)):
            return text
        raise Ldr2hdrError(f"{shown} {shortened(text)}: give a number of {what}, or {' or '.join(words)}.")

    return read


def frame_rate(value: Any, shown: str = "--fps") -> Fraction | None:
    """ "25", "23.976", "24000/1001" → frames a second. Raises Ldr2hdrError."""
    if value is None:
        return None
    text = str(value)
    try:
        rate = Fraction(0 if "e" in text.lower() else text.strip())  # 1e99999999 would be written out in full
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise Ldr2hdrError(f"{shown} {shortened(text)}: give frames a second, such as 25, 23.976 or 24000/1001.")
    return rate


def memory_bytes(value: Any, shown: str = "--memory") -> int | None:
    """ "6G", "512M", "1.5g" → bytes; None for "auto". Raises Ldr2hdrError."""
    if value is None or value == "auto":
        return None
    text = str(value)
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)i?b?", text.strip().lower())
    amount = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")) if found else 0
    if amount == 0:
        raise Ldr2hdrError(f"{shown} {shortened(text)}: not an amount of memory; write it like 6G or 512M.")
    return amount


def name_pattern(value: Any, shown: str) -> None:
    """Checks a pattern of names: {stem} and {frame}, with a width such as {frame:04d}. Raises Ldr2hdrError."""
    text, found = str(value), set()
    try:
        for literal, name, spec, conversion in string.Formatter().parse(text):
            if not literal.isprintable() or set(literal) & set('/\\:*?"<>|'):
                raise Ldr2hdrError(f"{shown} {shortened(text)}: a name, and no path; the directory is that of -o.")
            if name is not None:
                allowed = r"(0?[1-9]?d?)" if name == "frame" else ""
                if name not in ("stem", "frame") or conversion or not re.fullmatch(allowed, spec or ""):
                    raise ValueError(name)
                found.add(name)
    except ValueError:
        raise Ldr2hdrError(
            f"{shown} {shortened(text)}: write it like {{stem}}.{{frame:04d}}; there is no other."
        ) from None
    if not found or text.startswith("."):
        raise Ldr2hdrError(
            f"{shown} {shortened(text)}: write it like {{stem}}.{{frame:04d}}, with one of them at least."
        )


def formats(value: Any, shown: str = "--format") -> str:
    """ "exr", "exr,ultrahdr" → each once, in that order. Raises Ldr2hdrError."""
    names, known = list(dict.fromkeys(name.strip() for name in str(value).split(","))), (*SUFFIXES, *FILMS)
    if unknown := [name for name in names if name not in known]:
        raise Ldr2hdrError(f"{shown} {shortened(unknown[0])!r}: choose from {', '.join(known)}, with commas between.")
    return ",".join(names)


def shard(value: Any, shown: str = "--shard") -> tuple[int, int]:
    """ "3/8" → part 3 of 8, from 1; none is the whole, part 1 of 1. Raises Ldr2hdrError."""
    if value is None:
        return 1, 1
    found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", str(value).strip())
    part, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= count:
        raise Ldr2hdrError(f"{shown} {shortened(value)}: give a part and how many there are, from 1/8 to 8/8.")
    return part, count


def farm(value: Any, shown: str = "--on") -> str:
    """ "ray", "ray:10.0.0.1:6379" → the address, empty where there is none. Raises Ldr2hdrError."""
    found = re.fullmatch(r"ray(?::(?:(auto)|([^\s:/]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}))?", str(value).strip())
    if found is None:
        raise Ldr2hdrError(f"{shown} {shortened(value)}: write ray, or ray:HOST:PORT as `ray start --head` prints it.")
    return str(value).strip().partition(":")[2]


def read_with(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Checks the text and keeps it as it is, since results and the manifest quote it."""

    def read(value: Any, shown: str) -> Any:
        check(value, shown)
        return as_text(value, shown)

    return read


def shortened(text: Any) -> str:
    """As a sentence quotes it."""
    text = str(text)
    return text if len(text) <= 80 else f"{text[:77]}..."
