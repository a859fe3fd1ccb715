"""What a client may ask for: options of `convert`, and files below the server's roots."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldr2hdr_cli.convert import run
from ldr2hdr_cli.convert.job import Item
from ldr2hdr_cli.option_values import shortened
from ldr2hdr_cli.options import ConvertOptions
from ldr2hdr_cli.serve.options import ServeOptions
from ldr2hdr_cli.typer_options import read_table
from model.errors import Ldr2hdrError

SERVERS = ("device", "memory", "encoders", "hwaccel", "max_pixels", "max_frames", "overwrite", "shard", "on")
"""Options of `convert` that are not a client's to choose."""
_MAGIC = set("*?[")


class Refused(Ldr2hdrError):
    """What a client asked for cannot be done. status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def options_of(asked: Mapping[str, Any], server: ServeOptions, device: str = "auto") -> ConvertOptions:
    """The options of a job. asked: as the client sent them. Raises Refused."""
    if own := [name for name in asked if isinstance(name, str) and name.replace("-", "_") in SERVERS]:
        raise Refused(422, f"{own[0]} is the server's to choose: omit it.")
    try:
        options = ConvertOptions(
            **{
                "weights": server.weights,
                **read_table(ConvertOptions, asked, "the request"),
                "device": device,
                "max_pixels": server.max_pixels,
                "max_frames": server.max_frames,
            }
        )
    except Ldr2hdrError as error:
        raise Refused(422, str(error)) from None
    if "weights" in asked and options.weights is not None:
        check_below(str(options.weights), server)
    if options.ocio and not re.match(r"ocio://", options.ocio):
        check_below(options.ocio, server)
    return options


def check_below(path: str, server: ServeOptions) -> Path:
    """The path without links. Raises Refused for one that does not lie below a root, whether it exists or not."""
    try:
        real = Path(os.path.realpath(path))
        if Path(path).is_absolute() and any(real.is_relative_to(os.path.realpath(root)) for root in server.root or ()):
            return real
    except ValueError:  # a NUL byte
        pass
    raise Refused(
        403,
        f"{shortened(path)!r} is not below a --root of this server: give an absolute path there, or upload the file.",
    )


def planned(inputs: Sequence[str], out: Path, options: ConvertOptions, server: ServeOptions, below: bool) -> list[Item]:
    """What a job would convert. below: the inputs must lie below a root. Raises Refused.

    A name may hold a pattern, as for `convert`; what it finds is checked too, since a link may lead elsewhere.
    """
    if below:
        for word in inputs:
            path = Path(word)
            check_below(str(path.parent) if _MAGIC & set(path.name) else word, server)
            if _MAGIC & set(str(path.parent)):
                raise Refused(422, f"{shortened(word)!r} has a pattern in its folder: only a file's name may have one.")
    try:
        items, _ = run.plan(inputs, out, options)
    except Ldr2hdrError as error:
        raise Refused(422, str(error)) from None
    if below:
        for item in items:
            check_below(str(item.input.path), server)
    if len(items) > server.max_pictures:
        raise Refused(
            413,
            f"These are {len(items)} pictures, more than the {server.max_pictures} that a job may have: ask for fewer.",
        )
    return items


def file_name(given: str, taken: set[str]) -> str:
    """The name under which an upload is kept: without folders and control characters, and not yet taken."""
    name = re.split(r"[/\\]", given)[-1]
    name = "".join(one if one.isprintable() and one not in ':*?"<>|' else "_" for one in name).strip(" .")
    stem, dot, suffix = (name or "picture").rpartition(".")
    stem, suffix = (stem, dot + suffix[:12]) if dot else (suffix, "")
    stem = stem.encode()[:150].decode(errors="ignore")  # file systems take 255 bytes, and results have longer names
    name, count = stem + suffix, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}{suffix}"
    taken.add(name.casefold())
    return name
