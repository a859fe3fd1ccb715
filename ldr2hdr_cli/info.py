"""What a file is: an image, a clip, a result, or weights."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ldr2hdr_cli.terminal import one_line
from model.constants import LUMINANCE
from model.errors import Ldr2hdrError

_LUMINANCE = np.array(LUMINANCE, np.float32)
_BAND = 2**20  # pixels looked at together
_SAMPLE = 2**23  # pixels that percentiles are taken of, at most
_CARD = 2**16  # bytes of a card that are read


def describe(path: Path) -> dict[str, Any]:
    """All that is known of a file, as JSON can hold it.

    Always has `path`, `kind` ("exr", "radiance", "weights", or what `sources.probe` calls an image or a clip)
    and `bytes`; the rest depends on the kind. Raises Ldr2hdrError for a missing, damaged or unknown file.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a path is too long
        raise Ldr2hdrError(f"{path} does not exist or is not a file; check the name.")
    try:
        with redirect_stdout(sys.stderr):  # OpenEXR prints what it thinks of a damaged file
            found = _READERS.get(path.suffix.lower(), _source)(path)
        return {"path": str(path), "kind": found.pop("kind"), "bytes": path.stat().st_size, **found}
    except OSError as error:
        raise Ldr2hdrError(f"{path} cannot be read ({error.strerror}).") from None


def light_statistics(pixels: np.ndarray | Sequence[np.ndarray]) -> dict[str, Any]:
    """How much light a linear picture holds; pixels: H×W×C, or C planes H×W; LDR white = 1.0.

    minimum, maximum and median of the finite values; share_above_one: of the pixels with a channel above 1.0;
    stops: log2 of the 99.9th over the 0.1th percentile of positive luminance (BT.709 weights for three
    channels, the mean otherwise), None without positive light; the counts of NaN and infinite values.
    The median and the stops of a picture of more than 8 million pixels are those of an even sample of them.
    """
    planes = [*np.moveaxis(pixels, 2, 0)] if isinstance(pixels, np.ndarray) else pixels
    count = planes[0].size
    low, high = math.inf, -math.inf
    above = nan = infinite = 0
    values, lights = [], []
    step, seen = _step(count, planes[0].shape[1]), 0
    for band in _bands(planes):
        finite = np.isfinite(band)
        sound = band if finite.all() else band[finite]
        low, high = float(sound.min(initial=low)), float(sound.max(initial=high))
        above += int((band > 1).any(axis=0).sum())
        nan += int(np.isnan(band).sum())
        infinite += int(np.isinf(band).sum())
        some, whole = (part[:, -seen % step :: step] for part in (band, finite))
        seen += band.shape[1]
        values.append(some[whole])
        some = some[:, whole.all(axis=0)]
        lights.append(_LUMINANCE @ some if len(planes) == 3 else some.mean(axis=0))
    light = np.concatenate(lights)
    stops = None
    if (light > 0).any():
        dark, bright = np.percentile(light[light > 0], (0.1, 99.9))
        stops = round(float(np.log2(bright / dark)), 3)
    return {
        "minimum": low if low <= high else None,
        "maximum": high if low <= high else None,
        "median": float(np.median(np.concatenate(values))) if low <= high else None,
        "share_above_one": above / count,
        "stops": stops,
        "nan": nan,
        "infinite": infinite,
    }


def _bands(planes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """A few rows at a time, float32, C × pixels: a float copy of a large half picture would be twice its size."""
    height, width = planes[0].shape
    rows = max(_BAND // width, 1)
    for top in range(0, height, rows):
        yield np.stack([plane[top : top + rows].astype(np.float32).ravel() for plane in planes])


def _step(count: int, width: int) -> int:
    """One pixel in so many is sampled; the step shares no factor with the width, so that all columns are seen."""
    step = -(-count // _SAMPLE)
    while step > 1 and math.gcd(step, width) > 1:
        step += 1
    return step


def _exr(path: Path) -> dict[str, Any]:
    from ldr2hdr_cli.media.exr import read_planes

    planes, attributes = read_planes(path)
    height, width = next(iter(planes.values())).shape
    colour: list[str] = [name for name in ("R", "G", "B") if name in planes] or [name for name in planes if name != "A"]
    compression = attributes.pop("compression").name.removesuffix("_COMPRESSION").lower()
    types = {"float16": "half", "float32": "float", "uint32": "uint"}
    return {
        "kind": "exr",
        "width": width,
        "height": height,
        "channels": {name: types[plane.dtype.name] for name, plane in planes.items()},
        "compression": "none" if compression == "no" else compression,
        "light": light_statistics([planes[name] for name in colour or planes]),
        "attributes": {name: _plain(value) for name, value in attributes.items()},
    }


def _radiance(path: Path) -> dict[str, Any]:
    from ldr2hdr_cli.media.radiance import read_radiance

    pixels, attributes = read_radiance(path)
    height, width = pixels.shape[:2]
    return {
        "kind": "radiance",
        "width": width,
        "height": height,
        "channels": dict.fromkeys("RGB", "rgbe"),
        "light": light_statistics(pixels),
        "attributes": attributes,
    }


def _weights(path: Path) -> dict[str, Any]:
    from model.checkpoint import load_network, read_metadata, read_scenes, weights_sha256

    network = load_network(path)
    # Our keys have our name in front in the file, so that they cannot meet another program's.
    metadata = {name.removeprefix("ldr2hdr."): text for name, text in read_metadata(path).items()}
    metadata.pop("config", None)
    if metadata.pop("scenes", None) is not None:
        metadata["scenes"] = f"{len(read_scenes(path))} pictures"
    found: dict[str, Any] = {
        "kind": "weights",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "sha256": weights_sha256(path),
        "provisional": metadata.get("status") == "provisional",
        "config": asdict(network.config),
        "metadata": metadata,
    }
    if (card := _card_summary(path)) is not None:
        found["card"] = card
    return found


def _card_summary(weights: Path) -> str | None:
    """The first paragraph of the card: `NAME.md` beside the weights."""
    card = weights.with_suffix(".md")
    if not card.is_file():
        return None
    with card.open("rb") as file:
        paragraphs = file.read(_CARD).decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n")
    texts = (" ".join(part.split()) for part in paragraphs)
    return next((text for text in texts if text and not text.startswith(("#", "---", "|"))), None)


def _source(path: Path) -> dict[str, Any]:
    from ldr2hdr_cli.media.sources import probe

    source = probe(path)
    found = {field.name: _plain(getattr(source, field.name)) for field in fields(source)}
    found.pop("path", None)
    found["encoding"] = str(source.encoding)
    # What does not apply to a still (a frame rate, a timecode) is left out rather than shown as nothing.
    return {name: value for name, value in found.items() if value is not None and value not in ([], {}, "")}


_READERS = {
    ".exr": _exr,
    ".hdr": _radiance,
    ".pic": _radiance,
    ".safetensors": _weights,
    ".pth": _weights,
    ".pt": _weights,
}


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, Enum) or (type(value).__module__ == "OpenEXR" and hasattr(value, "name")):
        return value.name  # OpenEXR's enumerations are not Python's
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if type(value).__name__ == "TimeCode":
        mark = ";" if value.dropFrame else ":"
        return f"{value.hours:02}:{value.minutes:02}:{value.seconds:02}{mark}{value.frame:02}"
    try:
        return str(value)
    except UnicodeDecodeError:  # OpenEXR's, of an attribute whose type is damaged
        return f"unreadable {type(value).__name__}"


def render(description: Mapping[str, Any]) -> Group:
    """A description as a rich table; nested entries are indented below their name. Nothing in it is more than text."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in description.items():
        if name != "path":
            _add_rows(table, name.replace("_", " "), value, name)
    # Text, not str: a file name may hold square brackets, which rich would take for markup.
    return Group(Text(one_line(str(description["path"])), style="bold"), table)


def _add_rows(table: Table, label: str, value: Any, name: str) -> None:
    label = one_line(label)
    if isinstance(value, Mapping):
        table.add_row(Text(label), Text(""))
        for inner, entry in value.items():
            # An attribute is shown under its exact name; only the names of our statistics lose their underscores.
            _add_rows(table, f"  {inner.replace('_', ' ') if name == 'light' else inner}", entry, inner)
    else:
        table.add_row(Text(label), Text(one_line(_shown(name, value))))


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if name == "share_above_one":
        return f"{100 * value:.2f} %"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and name in ("bytes", "parameters"):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_shown("", entry) for entry in value)
    return str(value)
