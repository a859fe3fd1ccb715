"""The page over a finished job: which results it shows, in which order, and the folder that holds it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldr2hdr_cli.convert.manifest import EARLIER, MANIFEST, Contents, Manifest
from ldr2hdr_cli.media.formats import FILM_SUFFIXES
from ldr2hdr_cli.media.sources import VIEW_FOLDER
from ldr2hdr_cli.terminal import one_line
from ldr2hdr_cli.view.pictures import STOPS, Card, card_of
from model import __version__
from model.atomic import write_atomically
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from jinja2 import Environment

FRAMES = 5  # of a clip that are shown
MANY = 100  # results, from which on their pictures are small
SIDE, SMALL_SIDE = 960, 480  # longer side of a picture, in pixels
_PICTURE = re.compile(r"[0-9a-f]{12}-(before|after)-\d\.webp")


@dataclass(frozen=True)
class Chosen:
    """A result that is shown.

    name: in the output directory. entry: of the manifest. group: its clip, or itself. about: which frame it is.
    """

    name: str
    entry: dict[str, Any]
    group: str
    about: str = ""


def build(
    out: Path, folder: Path | None = None, track: Callable[[Sequence[Chosen]], Iterable[Chosen]] = iter
) -> tuple[Path, list[Card]]:
    """Write the page over a job's output directory into `folder`, `out`/ldr2hdr-view by default.

    track: passes on the results while they are worked on, and may show how far that is. Returns the page's path and
    its cards. Raises Ldr2hdrError where there is no job, or the page cannot be written.
    """
    if not (out / MANIFEST).is_dir() and not (out / EARLIER).is_file():
        raise Ldr2hdrError(f"{out} holds no job: {MANIFEST} is not there; give the -o of a convert.")
    manifest = Manifest(out).everything()
    chosen = choose(manifest.entries)
    if manifest.entries and not chosen:
        raise Ldr2hdrError(f"{out} holds films alone, which a player shows; convert with --format exr too for a page.")
    folder = folder or out / VIEW_FOLDER
    pictures = folder / "pictures"
    side = SMALL_SIDE if len(chosen) > MANY else SIDE
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        cards = _failed(manifest)
        for one in track(chosen):
            settings = manifest.settings.get(one.entry.get("settings", ""), {})
            card = card_of(out / one.name, one.name, one.entry, settings, pictures, side)
            card.about, card.group = one.about, one.group
            cards.append(card)
        _tidy(pictures, {card.stem for card in cards})
    except OSError as error:
        raise Ldr2hdrError(f"{folder} cannot be written ({error.strerror}): choose another with --output.") from None
    cards = in_order(cards)
    page = folder / "index.html"
    write_atomically(page, render(cards, str(out)).encode("utf-8", "backslashreplace"))
    return page, cards


def choose(entries: dict[str, dict[str, Any]]) -> list[Chosen]:
    """Every photograph, and of each clip a few frames spread evenly from its first to its last; no films."""
    clips: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if Path(name).suffix in FILM_SUFFIXES:
            continue
        # The frames of a clip, or of a numbered sequence, differ in their last number.
        is_frame = entry.get("frame") is not None
        clips.setdefault(re.sub(r"\d+(?=\D*$)", "#", name) if is_frame else name, []).append(name)
    chosen: list[Chosen] = []
    for group, names in clips.items():
        names.sort(key=lambda name: (entries[name].get("frame") or 0, name))
        places = np.linspace(0, len(names) - 1, min(FRAMES, len(names))).round().astype(int)
        for at in places:
            frame = entries[names[at]].get("frame")
            about = f"frame {frame}" if frame is not None else ""
            about += f", one of {len(places)} shown of {len(names)}" if len(places) < len(names) else ""
            chosen.append(Chosen(names[at], entries[names[at]], group, about))
    return chosen


def render(cards: Sequence[Card], title: str) -> str:
    """The page as HTML. Names of files are data: escaped wherever they stand."""
    environment = templates()
    environment.filters["stops"] = _stops
    return environment.get_template("view/page.html").render(
        cards=cards, stops=STOPS, title=one_line(title), version=__version__, first=STOPS.index(-2)
    )


def templates() -> "Environment":
    """The pages of this package and of `serve`, which share what shows a picture beside its source."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ldr2hdr_cli", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _failed(manifest: Contents) -> list[Card]:
    """Sources that could not be converted."""
    cards = []
    for (source, frame), message in manifest.failures.items():
        about = f"frame {frame}" if frame is not None else ""
        cards.append(Card(one_line(Path(source).name), about, failed=True, group=source, marks=[one_line(message)]))
    return cards


def _tidy(pictures: Path, stems: set[str]) -> None:
    """Pictures of results that are no longer shown."""
    for path in pictures.iterdir():
        if _PICTURE.fullmatch(path.name) and path.name[:12] not in stems:
            path.unlink()


def in_order(cards: Sequence[Card]) -> list[Card]:
    """What deserves a look first: what failed, what is marked, then the most clipped; a clip's frames together."""
    first: dict[str, tuple[bool, bool, float]] = {}
    for card in cards:
        key = not card.failed, not card.marks, -(card.clipped or 0)
        first[card.group] = min(first.get(card.group, key), key)
    return sorted(cards, key=lambda card: (first[card.group], card.group))  # stable: frames stay in their order


def _stops(value: float) -> str:
    """ "+4.2" of a value in LDR white."""
    return f"{log2(max(value, 2.0**-20)):+.1f}".replace("-", "−")
