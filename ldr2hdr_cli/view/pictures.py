"""One result of a job, made ready for the page: its pictures at several exposures, and what is worth knowing of it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldr2hdr_cli.convert.manifest import fingerprint
from ldr2hdr_cli.convert.rendering import rendering_of
from ldr2hdr_cli.media.colour import COLOR_INTEROP, REC709, Chromaticities, conversion
from ldr2hdr_cli.media.display_light import DIFFUSE_WHITE
from ldr2hdr_cli.media.exr import HALF_MAX, PREFIX, read_planes
from ldr2hdr_cli.media.formats import SUFFIXES
from ldr2hdr_cli.media.preview import display, fit, in_rec709, shown
from ldr2hdr_cli.media.radiance import read_radiance
from ldr2hdr_cli.media.sources import SourceInfo, probe, read_frames, read_still
from ldr2hdr_cli.options import ConvertOptions
from ldr2hdr_cli.terminal import one_line
from model.errors import Ldr2hdrError
from model.exposure import Encoding, linearise

STOPS = (0, -2, -4, -6)
_LARGE_SHARE = 0.25  # clipped: so large a part of a picture can only be guessed
_CLIPPED = 0.96  # α, for jobs of versions whose manifests do not say how much was clipped


@dataclass
class Card:
    """What the page shows of one result.

    stem: of its pictures' names, STEM-after-0.webp for the first of STOPS; empty where there is none. peak: brightest
    value, in LDR white. clipped: share of the pixels. group: what the frames of
    a clip have in common. marks: why it deserves a look. notes: what else is to be known.
    """

    name: str
    about: str = ""
    stem: str = ""
    width: int = 0
    height: int = 0
    has_source: bool = False
    peak: float | None = None
    clipped: float | None = None
    failed: bool = False
    group: str = ""
    marks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A result and its source in linear Rec. 709, made small, to be shown at any exposure.

    before: None where the source cannot be read again. peak: brightest value, in LDR white; largest: the same, as it
    is stored. screen: what both are encoded for. white: where LDR white lies in the result. notes: what else is to be
    known.
    """

    before: np.ndarray | None
    after: np.ndarray
    peak: float
    largest: float
    clipped: float | None
    screen: Encoding
    white: float
    notes: list[str]

    def source(self, stops: float) -> np.ndarray | None:
        """uint8 H×W×3, sRGB; at 0 stops what the source is. Clipped at white."""
        return None if self.before is None else _codes(shown(self.before, stops, self.screen, "plain"))

    def result(self, stops: float) -> np.ndarray:
        """uint8 H×W×3, sRGB. Highlights are rolled off."""
        return _codes(shown(self.after, stops, self.screen, "soft", self.white))


def pair_of(output: Path, entry: dict[str, Any], settings: dict[str, Any], side: int) -> Pair:
    """Read a result and its source, made at most `side` pixels long.

    entry, settings: of the manifest. Raises Ldr2hdrError or OSError where the result cannot be read.
    """
    notes: list[str] = []
    hdr, chromaticities = _result(_best(output, entry), settings, notes)
    info, ldr = _source(entry, settings, notes)
    height, width = hdr.shape[:2]
    info = info or SourceInfo(output, "still", width, height, 8, chromaticities=chromaticities)
    rendering = rendering_of(info, _options(settings))
    clipped = entry.get("clipped")
    if clipped is None and ldr is not None:
        clipped = float((ldr > _CLIPPED).any(2).mean())

    width = max(1, round(width * min(1, side / max(height, width))))
    source_matrix, encoding = conversion(info.chromaticities, REC709), rendering.encoding
    before = None
    if ldr is not None:
        light = linearise(ldr, encoding.transfer, encoding.gamma) * np.float32(rendering.gain)
        before = in_rec709(fit(light, width), source_matrix)
    after = in_rec709(fit(hdr, width), conversion(chromaticities, REC709))
    largest, screen = float(hdr.max()), display(encoding, source_matrix)
    return Pair(before, after, largest / rendering.gain, largest, clipped, screen, rendering.gain, notes)


def card_of(output: Path, name: str, entry: dict[str, Any], settings: dict[str, Any], folder: Path, side: int) -> Card:
    """Read a result and its source, and write their pictures, at most `side` pixels long, into `folder`.

    entry, settings: of the manifest. A result that cannot be read makes a card that says so.
    """
    card = Card(one_line(name))
    try:
        pair = pair_of(output, entry, settings, side)
    except (Ldr2hdrError, OSError) as error:
        card.failed = True
        card.marks.append(one_line(str(error)))
        return card
    card.stem = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    card.has_source = pair.before is not None
    card.peak, card.clipped, card.notes = pair.peak, pair.clipped, pair.notes
    card.height, card.width = pair.after.shape[:2]
    _mark(card, pair.largest)
    for index, stops in enumerate(STOPS):
        for kind, picture in (("after", pair.result(stops)), ("before", pair.source(stops))):
            if picture is not None:
                path = folder / f"{card.stem}-{kind}-{index}.webp"
                Image.fromarray(picture).save(path, "WEBP", quality=85, method=2)
    return card


def _best(output: Path, entry: dict[str, Any]) -> Path:
    """Of the files of one result, the one that keeps most: scene-linear before what is led up to a display's peak."""
    files = [output, *(output.with_name(name) for name in entry.get("more", {}))]
    return min(files, key=lambda path: {".exr": 0, ".hdr": 1}.get(path.suffix, 2))


def _result(path: Path, settings: dict[str, Any], notes: list[str]) -> tuple[np.ndarray, Chromaticities]:
    """Linear RGB, H×W×3 float32, LDR white 1.0 but for `--exposure`, and its primaries."""
    if path.name.endswith((SUFFIXES["ultrahdr"], SUFFIXES["avif"])):
        info, frame = read_still(path, from_hdr=True, gain_map="only")
        light = linearise(frame.pixels, info.encoding.transfer, info.encoding.gamma)
        if info.transfer == "pq":
            light *= np.float32(DIFFUSE_WHITE / float(settings.get("white", DIFFUSE_WHITE)))
        notes.append("Its highlights end at the peak of the display that it was written for.")
        return light if frame.gain is None else light * frame.gain, info.chromaticities
    if path.suffix == ".hdr":
        hdr, attributes = read_radiance(path)
    else:
        planes, attributes = read_planes(path)
        if not planes.keys() >= {"R", "G", "B"}:
            raise Ldr2hdrError(f"{path} has no channels R, G, B; run the same convert again.")
        hdr = np.stack([planes[channel] for channel in "RGB"], -1).astype(np.float32)
    known = COLOR_INTEROP.get(str(attributes.get("colorInteropID")))
    if known is None and (space := attributes.get(PREFIX + "ocio")):
        notes.append(one_line(f"It is in {space}, and shown as if that were linear Rec. 709."))
    chromaticities = attributes.get("chromaticities") or known or REC709
    return np.nan_to_num(hdr, nan=0.0, posinf=HALF_MAX), tuple(float(value) for value in chromaticities)


def _source(
    entry: dict[str, Any], settings: dict[str, Any], notes: list[str]
) -> tuple[SourceInfo | None, np.ndarray | None]:
    """The source as it was read for this result, or nothing and a note that says why."""
    path = Path(str(entry.get("source")))
    try:
        if list(fingerprint(path)) != [entry.get("size"), entry.get("modified")]:
            notes.append("The source has changed since.")
        deinterlace = bool(settings.get("deinterlace"))
        info = probe(path, deinterlace=deinterlace)
        if info.kind == "still":
            info, frame = read_still(path, from_hdr=True)
        else:
            # Manifests of older versions have the frame's number only, which counts from 1 by default.
            index = entry.get("index", (entry.get("frame") or 1) - 1)
            frame = next(iter(read_frames(path, first=index, last=index, deinterlace=deinterlace, from_hdr=True)))
    except (OSError, StopIteration):
        notes.append("The source is gone: only the result is shown.")
        return None, None
    except Ldr2hdrError as error:
        notes.append(one_line(f"The source cannot be read again ({error}): only the result is shown."))
        return None, None
    return info, frame.pixels


def _options(settings: dict[str, Any]) -> ConvertOptions:
    """Those that say how a source was linearised; the defaults where the manifest lacks them."""
    known = {name: settings[name] for name in ("transfer", "gamma", "exposure") if name in settings}
    try:
        return ConvertOptions(**known)
    except Ldr2hdrError:  # of a newer version
        return ConvertOptions()


def _mark(card: Card, largest: float) -> None:
    if card.clipped is not None and card.clipped > _LARGE_SHARE:
        card.marks.append(f"{card.clipped:.0%} is clipped: most of that can only be guessed.")
    if card.clipped is not None and card.clipped > 0.01 and card.peak is not None and card.peak < 1.1:
        card.marks.append("Parts are clipped, but hardly anything was added there.")
    if largest >= HALF_MAX:
        card.marks.append("The brightest values reach the limit of half float.")


def _codes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
