"""The photographs of docs/photographs.md three stops down: the source at 0 stops, `clip`, and each network.

    python benchmarks/photographs.py examples PHOTOGRAPHS [--weights FILE ...] [-o docs/photographs.jpg]

The list was written before the run. The results are those of `ldr2hdr convert`, shown as by its `--preview`.
"""

import argparse
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import ldr2hdr
from ldr2hdr_cli.media.colour import REC709, conversion
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.preview import display, fit, in_rec709, shown
from ldr2hdr_cli.media.sources import read_still
from model.exposure import linearise

LIST = Path(__file__).resolve().parents[1] / "docs" / "photographs.md"
ROW = re.compile(r"\| *(\d+) *\| *`([^`]+)` *\|")  # number and file, at the start of a line of the list's table
STOPS = -3
WIDTH, BAR = 400, 20  # of a panel, and of the bar above it, in pixels
QUALITY = 82


@dataclass(frozen=True)
class Column:
    name: str
    options: ldr2hdr.ConvertOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where the photographs are")
    parser.add_argument("--weights", nargs="+", default=["default"], help="one column each; default: those installed")
    parser.add_argument("-o", "--output", type=Path, default=LIST.with_suffix(".jpg"))
    given = parser.parse_args()
    options = ldr2hdr.ConvertOptions(transfer="auto")
    columns = [Column("clip", replace(options, method="clip"))]
    for name in given.weights:
        weights = None if name == "default" else Path(name)
        columns.append(Column(Path(name).stem, replace(options, weights=weights)))
    rows = [_row(number, _found(name, given.folders), columns) for number, name in _listed()]
    Image.fromarray(np.concatenate(rows)).save(given.output, quality=QUALITY, optimize=True, progressive=True)
    print(f"{given.output}: {len(rows)} photographs, {given.output.stat().st_size / 1000:.0f} kB")


def _listed() -> Iterator[tuple[int, str]]:
    for line in LIST.read_text().splitlines():
        row = ROW.match(line)
        if row:
            yield int(row[1]), row[2]


def _found(name: str, folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(f"{name} is in none of {', '.join(map(str, folders))}.")


def _row(number: int, path: Path, columns: list[Column]) -> np.ndarray:
    info, frame = read_still(path)
    matrix = conversion(info.chromaticities, REC709)
    screen = display(info.encoding, matrix)
    source = linearise(frame.pixels[..., :3], info.encoding.transfer, info.encoding.gamma)
    light = in_rec709(fit(source, WIDTH), matrix)
    panels = [_labelled(shown(light, 0, screen, "plain"), f"{number}  source, 0 stops")]
    for column in columns:
        light = in_rec709(fit(_converted(path, column.options), WIDTH), matrix)
        panels.append(_labelled(shown(light, STOPS, screen), f"{column.name}, {STOPS} stops"))
    return np.concatenate(panels, axis=1)


def _converted(path: Path, options: ldr2hdr.ConvertOptions) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="ldr2hdr-photographs-") as folder:
        for event in ldr2hdr.convert([path], Path(folder), options):
            if isinstance(event, ldr2hdr.Failed):
                raise SystemExit(str(event))
        (result,) = Path(folder).glob("*.exr")
        pixels, _, _ = read_exr(result)
    return pixels[..., :3]


def _labelled(panel: np.ndarray, text: str) -> np.ndarray:
    codes = np.rint(np.clip(panel, 0, 1) * 255).astype(np.uint8)
    bar = Image.new("RGB", (codes.shape[1], BAR), (32, 32, 32))
    ImageDraw.Draw(bar).text((6, 2), text, fill=(230, 230, 230), font=ImageFont.load_default(13))
    return np.concatenate((np.asarray(bar), codes))


if __name__ == "__main__":
    main()
