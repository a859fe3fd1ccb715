"""How much the result depends on a picture's size: the same picture at 0.5, 1, 2 and 4 times its size, in stops.

    python benchmarks/sizes.py PICTURE_OR_FOLDER ... [--weights FILE] [--off]

Each result is reduced to the smallest size and compared with that of the picture as it is, where it is clipped at
every size: the median of |log2(a / b)|. Pictures with less than 0.2 % of their values clipped are left out. Nothing
here is asserted.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from ldr2hdr_cli.media.sources import STILL_SUFFIXES, read_still
from model import Reconstructor, load_network
from model.checkpoint import usual_working_size

TIMES = (0.5, 1.0, 2.0, 4.0)
LEAST_CLIPPED = 0.002
CLIPPED = 0.999  # of the mean of the values that become one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--weights", type=Path, help="else the default weights")
    parser.add_argument("--off", action="store_true", help="as with convert --working-size off")
    given = parser.parse_args()
    working_size = None if given.off else usual_working_size(given.weights)
    reconstructor = Reconstructor(load_network(given.weights), working_size=working_size)
    print(f"{'picture':>24} {'clipped':>8}" + "".join(f"{times:>8g}×" for times in TIMES if times != 1) + "   stops")
    rows = []
    for path in _paths(given.pictures):
        changes = _changes(read_still(path)[1].pixels[..., :3], reconstructor)
        if changes is not None:
            share, stops = changes
            rows.append(stops)
            print(f"{path.name:>24} {share:8.1%}" + "".join(f"{value:9.3f}" for value in stops), flush=True)
    if rows:
        print(f"{'median of ' + str(len(rows)):>24} {'':>8}" + "".join(f"{value:9.3f}" for value in np.median(rows, 0)))
        print(f"{(np.max(rows, 1) > 0.1).sum()} of {len(rows)} change by more than 0.1 stop")


def _paths(given: list[Path]) -> list[Path]:
    found = [sorted(path.iterdir()) if path.is_dir() else [path] for path in given]
    return [path for part in found for path in part if path.suffix.lower() in STILL_SUFFIXES]


def _changes(ldr: np.ndarray, reconstructor: Reconstructor) -> tuple[float, list[float]] | None:
    """The share of clipped values, and the median change at each size but the picture's own; None: too few."""
    height, width = (side // 2 for side in ldr.shape[:2])
    ldr = ldr[: 2 * height, : 2 * width]
    clipped = np.ones((height, width, 3), bool)
    results = {}
    for times in TIMES:
        size = (round(2 * width * times), round(2 * height * times))
        how = cv2.INTER_AREA if times < 1 else cv2.INTER_CUBIC
        scaled = ldr if times == 1 else np.clip(cv2.resize(ldr, size, interpolation=how), 0, 1)
        clipped &= cv2.resize(scaled, (width, height), interpolation=cv2.INTER_AREA) > CLIPPED
        if clipped.mean() < LEAST_CLIPPED:
            return None
        hdr = reconstructor.reconstruct(scaled)
        results[times] = np.log2(cv2.resize(hdr, (width, height), interpolation=cv2.INTER_AREA).clip(1e-6))
    own = results[1.0][clipped]
    return float(clipped.mean()), [
        float(np.median(np.abs(results[times][clipped] - own))) for times in TIMES if times != 1
    ]


if __name__ == "__main__":
    main()
