"""Tables 1 and 2 and figure 8 of Santos et al. 2020 in their layout, for the HDR pictures at hand.

    python benchmarks/paper_tables.py --hdr PANORAMAS [--list NAMES.txt] [--ablation OUT] [--out DIR]

MSE is that of gamma-corrected pictures, HDR-VDP-2 the Q of version 2.2 on linear ones, both after `evaluate`'s
alignment. Beside them stand the paper's own numbers. Those are of the authors' test set, 75 pictures that were not
published, and of other networks: compare the order of the rows, not the numbers. OUT is what `ablation.py --out` kept;
without it, table 2 has the paper's numbers alone. With --out, figure 8 is written as SVG and PNG.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from ablation import variants, weights_name
from rich.progress import track

from ldr2hdr_cli.convert.operators import METHODS
from ldr2hdr_cli.evaluation.compare import Method, aligned, methods_by_name, network_method
from ldr2hdr_cli.evaluation.hdrvdp import hdrvdp2
from ldr2hdr_cli.evaluation.metrics import PEAK, WHITE, mse_gamma
from ldr2hdr_cli.evaluation.protocol import Case, Protocol, made_cases, read_list
from ldr2hdr_cli.evaluation.summary import Estimate, estimate, per_scene, resampled

NOT_PUBLISHED = "on the authors' own test set, 75 pictures, not published"
SHARES = "4,8,10"  # per cent; those that figure 8 names
TABLE_1 = {  # MSE, HDR-VDP-2
    "Endo et al. [2017]": (0.0390, 55.67),
    "Eilertsen et al. [2017]": (0.0387, 59.11),
    "Marnerides et al. [2018]": (0.0474, 54.31),
    "Ours": (0.0356, 63.18),
}
TABLE_2 = {
    "SConv + HDR pre-training": (0.0402, 58.43),
    "SConv + Inp. pre-training": (0.0374, 60.03),
    "GConv + HDR pre-training": (0.0398, 53.32),
    "GConv + Inp. pre-training": (0.1017, 43.13),
    "IMask + HDR pre-training": (0.0398, 58.39),
    "IMask + Inp. pre-training": (0.0369, 61.27),
    "FMask + HDR pre-training": (0.0393, 58.81),
    "FMask + Inp. pre-training": (0.0356, 63.18),
}


@dataclass(frozen=True)
class Score:
    """Of one method. Estimates count every scene once, with the 95 % interval of a bootstrap over scenes."""

    mse: Estimate
    median_mse: float
    quality: Estimate


def main() -> None:
    given = arguments()
    ablated = of_ablation(given.ablation)
    methods = methods_by_name(METHODS, [None], [], given.device)
    methods |= {label: network_method(path, given.device) for label, path in ablated.items()}
    rows = list(scored(given, methods))
    levels = sorted({row["level"] for row in rows})
    counts = f"{len({row['case'] for row in rows})} pictures, {len({row['scene'] for row in rows})} scenes"
    print(f"\n{counts}; {given.share} % of the pixels clipped; {given.size} pixels a side.\n")
    scores = {name: score([row for row in rows if row["method"] == name], rows) for name in methods}
    print_table("Table 1", {name: scores[name] for name in methods if name not in ablated}, TABLE_1)
    print_table("Table 2", {label: scores[label] for label in ablated}, TABLE_2)
    curves = {
        name: {level: score([r for r in rows if (r["method"], r["level"]) == (name, level)], rows) for level in levels}
        for name in methods
    }
    print_figure(curves)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        draw(curves, given.out)
        with (given.out / "paper_tables.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdr", type=Path, required=True, metavar="DIR", help="HDR pictures; panoramas are cut")
    parser.add_argument("--list", type=Path, metavar="FILE", help="names of those to use, one a line; else all")
    parser.add_argument("--ablation", type=Path, metavar="OUT", help="what ablation.py --out kept, for table 2")
    parser.add_argument("--out", type=Path, metavar="DIR", help="figure 8 and every number, as files")
    parser.add_argument("--share", default=SHARES, metavar="PER CENT", help="[%(default)s]")
    parser.add_argument("--device", default="auto", help="[%(default)s]")
    for option, default in (("size", 512), ("views", 1), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default, metavar="N", help="[%(default)s]")
    return parser.parse_args()


def of_ablation(out: Path | None) -> dict[str, Path]:
    """Weights by their row of table 2."""
    if out is None:
        return {}
    paths = {label: out / "weights" / weights_name(label) for label, _, _ in variants(None) if label in TABLE_2}
    found = {label: path for label, path in paths.items() if path.is_file()}
    if not found:
        raise SystemExit(f"{out} has no weights of table 2; give what `ablation.py --out` wrote.")
    return found


def scored(given: argparse.Namespace, methods: dict[str, Method]) -> Iterator[dict[str, Any]]:
    names = read_list(given.list) if given.list else []
    shares = [float(part) for part in given.share.split(",")]
    protocol = Protocol(shares, mild=False, seed=given.seed, size=given.size, views=given.views, only=names)
    expected = len(names) * given.views * len(shares) or None
    cases = made_cases(given.hdr, protocol)
    where = "cuda" if given.device.startswith("cuda") else "cpu"
    for case in track(cases, "Evaluating", total=expected, disable=not sys.stderr.isatty()):
        for name, method in methods.items():
            yield {"case": case.name, "scene": case.scene, "level": case.level, "method": name} | numbers(
                aligned(method(case), case), case, where
            )


def numbers(picture: Any, case: Case, device: str) -> dict[str, float]:
    """MSE as `metrics.mse_gamma` has it; Q of the pictures on `evaluate`'s display, clamped to its peak."""
    on_screen = [(one * WHITE).clip(0.005, PEAK) for one in (picture, case.truth)]
    return {"mse": mse_gamma(picture, case.truth), "quality": hdrvdp2(*on_screen, None, device)}


def score(mine: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Score:
    weights, scenes = resampled(rows, seed=0)
    mse, quality = (estimate(per_scene(mine, scenes, key), weights) for key in ("mse", "quality"))
    return Score(mse, median(row["mse"] for row in mine), quality)


def print_table(title: str, ours: dict[str, Score], theirs: dict[str, tuple[float, float]]) -> None:
    print(f"| {title} | MSE | median | HDR-VDP-2 |\n|---|---|---|---|")
    for name, one in ours.items():
        print(f"| {name} | {spread(one.mse, 4)} | {one.median_mse:.4f} | {spread(one.quality, 2)} |")
    print(f"| *the paper's own numbers, {NOT_PUBLISHED}:* | | | |")
    for name, (mse, quality) in theirs.items():
        print(f"| *{name}* | *{mse:.4f}* | | *{quality:.2f}* |")
    print()


def print_figure(curves: dict[str, dict[float, Score]]) -> None:
    levels = list(next(iter(curves.values())))
    heads = [f"{what}, {level:g} %" for what in ("median MSE", "HDR-VDP-2") for level in levels]
    print("| Figure 8 | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for name, by_level in curves.items():
        cells = [f"{one.median_mse:.4f}" for one in by_level.values()]
        cells += [f"{one.quality.mean:.2f}" for one in by_level.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def draw(curves: dict[str, dict[float, Score]], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, by_level) in enumerate(curves.items()):
        levels, scores = list(by_level), list(by_level.values())
        style: dict[str, Any] = {"color": f"C{index % 10}", "lw": 1.4, "ms": 3}
        left.plot(levels, [one.median_mse for one in scores], "o-", label=name, **style)
        right.plot(levels, [one.quality.mean for one in scores], "o-", **style)
    left.set_yscale("log")
    left.set_title("MSE of gamma-corrected pictures, median (less is better)", fontsize=9)
    right.set_title("HDR-VDP-2.2, Q (more is better)", fontsize=9)
    for axis in (left, right):
        axis.set_xlabel("pixels clipped, %")
        axis.grid(alpha=0.2)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    for kind in ("svg", "png"):
        figure.savefig(out / f"figure8.{kind}", dpi=150)


def spread(one: Estimate, digits: int) -> str:
    interval = f" ({one.low:.{digits}f} to {one.high:.{digits}f})" if isfinite(one.low) else ""
    return f"{one.mean:.{digits}f}{interval}"


if __name__ == "__main__":
    main()
