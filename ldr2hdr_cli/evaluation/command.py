"""`ldr2hdr evaluate`: what a person types, and nothing that is heavy to import before it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.compare import Result
    from ldr2hdr_cli.evaluation.protocol import Case
    from model.reconstructor import Precision

DEFAULT_WEIGHTS = "default"
CLIPS_ON_PAGE = 6  # at most; four megabytes each
T = TypeVar("T")


def evaluate(
    hdr: Annotated[
        Path | None,
        typer.Option(help="Folder of HDR pictures (.exr, .hdr); panoramas are cut into views.", show_default=False),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="LDR_DIR HDR_DIR", help="Given inputs and their truths, matched by name.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="A network's weights, or 'default'; repeat it for several.", show_default=False),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A classical operator, or 'none'; repeat it. All of them unless given.", show_default=False),
    ] = None,
    prediction: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of HDR pictures that another program made of the same inputs.", show_default=False),
    ] = None,
    save_inputs: Annotated[
        Path | None,
        typer.Option(help="Write the LDR pictures there as PNG, for another program, and stop.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write results.csv, results.json, plots and a page there.", show_default=False
        ),
    ] = None,
    video: Annotated[
        bool,
        typer.Option("--video", help="Score clips of a camera that moves inside the panoramas: flicker and errors."),
    ] = False,
    frames: Annotated[int, typer.Option(min=2, help="Of a clip, for --video.")] = 24,
    only: Annotated[
        Path | None,
        typer.Option("--only", "--list", help="Text file with the scenes to use, one name a line.", show_default=False),
    ] = None,
    share: Annotated[str, typer.Option(help="Shares of clipped pixels, in per cent.")] = "4,8,12",
    mild: Annotated[bool, typer.Option(help="Also over-expose views without a light source mildly.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the virtual camera, the views and the bootstrap.")] = 0,
    size: Annotated[int, typer.Option(min=16, help="Side of a view, longer side of a picture, in pixels.")] = 512,
    views: Annotated[int, typer.Option(min=1, help="Views of a panorama.")] = 3,
    jpeg: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="The camera's JPEG quality; none: 8 bit, lossless.", show_default=False),
    ] = None,
    fit_curve: Annotated[
        bool, typer.Option("--fit-curve", help="Also remove the camera curve, by a monotone fit.")
    ] = False,
    cvvdp: Annotated[bool, typer.Option(help="Score with ColorVideoVDP too; it is slow.")] = True,
    peak: Annotated[float, typer.Option(min=1.0, help="Brightest a display shows in PU21 and cvvdp, cd/m².")] = 4000.0,
    white: Annotated[float, typer.Option(min=1.0, help="LDR white on that display, cd/m².")] = 100.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Pictures scored at a time; up to 4 unless given.", show_default=False)
    ] = None,
    page_pictures: Annotated[int, typer.Option(min=0, help="Pictures on the page, at most.")] = 24,
) -> None:
    """Compare networks, classical operators and other programs on pictures whose truth is known."""
    if video:
        if hdr is None or pairs or prediction or save_inputs:
            raise typer.BadParameter("--video goes with --hdr DIR, and not with --pairs, --prediction or --save-inputs")
        shares = _shares(share)
        clip_settings = {
            "hdr": _text(hdr), "level": shares[len(shares) // 2], "frames": frames, "size": size, "seed": seed,
            "peak": peak, "white": white,
        }  # fmt: skip
        return _evaluate_clips(hdr, only, clip_settings, weights, method, device, precision, out, page_pictures)
    from ldr2hdr_cli.convert.operators import METHODS
    from ldr2hdr_cli.evaluation.compare import Scoring, compare, methods_by_name
    from ldr2hdr_cli.evaluation.protocol import save_as_png

    cases = _cases(hdr, pairs, only, share, mild, seed, size, views, jpeg)
    if save_inputs is not None:
        count = save_as_png(cases, save_inputs)
        _say(f"Wrote {count} pictures to {_text(save_inputs)}.")
        return None
    networks, folders = _networks(weights, method), prediction or []
    methods = methods_by_name(_operators(method, METHODS), networks, folders, device, _precision(precision))
    if not methods:
        raise typer.BadParameter("nothing to compare: give --method, --weights or --prediction")
    scoring = Scoring(fit_curve, cvvdp, peak, white, "cuda" if device.startswith("cuda") else "cpu")
    results = compare(cases, methods, scoring, jobs or min(4, os.cpu_count() or 1))
    settings: dict[str, Any] = {
        "hdr": _text(hdr) if hdr else None,
        "pairs": [_text(folder) for folder in pairs] if pairs else None,
        "share": share, "mild": mild, "seed": seed, "size": size, "views": views, "jpeg": jpeg,
        "fit_curve": fit_curve, "peak": peak, "white": white, "methods": list(methods),
    }  # fmt: skip
    _evaluate_pictures(results, settings, out, page_pictures)
    return None


def _evaluate_pictures(
    results: Iterator[Result], settings: dict[str, Any], out: Path | None, page_pictures: int
) -> None:
    from rich.console import Console

    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.outcome import PictureScores
    from model.atomic import make_folder

    if out is not None:
        make_folder(out)
    scores = PictureScores.of(_watched(results, "pictures"), settings["seed"], page_pictures if out is not None else 0)
    console = Console()
    for one in scores.summary.values():
        console.print(report.table(one), report.bin_table(one))
        console.print()
    _say(*scores.verdict)
    if out is not None:
        scores.write(out, settings)
        _say("", f"Look at {_text(out / 'index.html')} in a browser.")


def _evaluate_clips(
    hdr: Path, only: Path | None, settings: dict[str, Any], weights: list[str] | None, operators: list[str] | None,
    device: str, precision: str, out: Path | None, page_pictures: int,
) -> None:  # fmt: skip
    from rich.console import Console

    from ldr2hdr_cli.evaluation.clip_report import clip_table
    from ldr2hdr_cli.evaluation.clips import made_clips
    from ldr2hdr_cli.evaluation.compare import network_name
    from ldr2hdr_cli.evaluation.flicker import network_clips, operator_clips
    from ldr2hdr_cli.evaluation.outcome import ClipScores
    from ldr2hdr_cli.evaluation.protocol import read_list
    from model.atomic import make_folder

    known_precision = _precision(precision)
    methods = [operator_clips(name) for name in _operators(operators, ["clip"])]
    networks = _networks(weights, operators)
    methods += [network_clips(network_name(path), path, device, known_precision) for path in networks]
    if out is not None:
        make_folder(out)
    level, frames, size, seed, peak, white = (
        settings[name] for name in ("level", "frames", "size", "seed", "peak", "white")
    )
    names = read_list(only) if only else None
    clips = made_clips(hdr, level=level, frames=frames, size=size, seed=seed, only=names)
    on_page = min(page_pictures, CLIPS_ON_PAGE) if out is not None else 0
    scores = ClipScores.of(_watched(clips, "clips"), methods, seed, peak, white, on_page)
    Console().print(clip_table(scores.summary, scores.clip_count))
    _say(*scores.verdict)
    if out is not None:
        scores.write(out, settings)
        _say("", f"Play them: open {_text(out / 'index.html')} in a browser.")


def _cases(
    hdr: Path | None, pairs: tuple[Path, Path] | None, only: Path | None, share: str, mild: bool,
    seed: int, size: int, views: int, jpeg: int | None,
) -> Iterator[Case]:  # fmt: skip
    from ldr2hdr_cli.evaluation.protocol import Protocol, given_cases, made_cases, read_list

    if (hdr is None) == (pairs is None):
        raise typer.BadParameter("give either --hdr DIR or --pairs LDR_DIR HDR_DIR")
    names = read_list(only) if only else []
    if pairs is not None:
        return given_cases(*pairs, names)
    assert hdr is not None
    return made_cases(hdr, Protocol(_shares(share), mild, seed, size, views, jpeg, names))


def _shares(text: str) -> list[float]:
    try:
        shares = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        shares = [-1.0]
    if not all(0 < share < 100 for share in shares):
        raise typer.BadParameter(f"--share takes per cents between 0 and 100, such as 4,8,12, not {text!r}")
    return shares


def _operators(given: list[str] | None, usual: Iterable[str]) -> list[str]:
    """Of --method, each once, in their order; "none" is none of them."""
    from ldr2hdr_cli.convert.operators import METHODS

    names = [name for name in given if name != "none"] if given else list(usual)
    if unknown := [name for name in names if name not in METHODS]:
        raise typer.BadParameter(f"--method must be one of {', '.join(METHODS)} or none, not {unknown[0]!r}")
    return list(dict.fromkeys(names))


def _networks(weights: list[str] | None, operators: list[str] | None) -> list[Path | None]:
    """Of --weights, None for the default ones, which run too where neither networks nor operators are chosen."""
    names = weights or ([] if operators else [DEFAULT_WEIGHTS])
    return [None if name == DEFAULT_WEIGHTS else Path(name) for name in names]


def _precision(name: str) -> Precision:
    if name not in ("auto", "fp32", "bf16", "fp16"):
        raise typer.BadParameter(f"--precision must be auto, fp32, bf16 or fp16, not {name!r}")
    return cast("Precision", name)


def _text(value: str | Path) -> str:
    """A name as it is shown and written, with its control characters spelt out."""
    from ldr2hdr_cli.terminal import one_line

    return one_line(str(value))


def _say(*lines: str) -> None:
    """On stdout; markup in a name is only text."""
    from rich.console import Console

    Console().print("\n".join(lines), highlight=False, markup=False)


def _watched(results: Iterator[T], what: str) -> Iterator[T]:
    """Say on stderr how many are done, since a run takes minutes."""
    from rich.console import Console

    with Console(stderr=True).status("Evaluating") as status:
        for count, result in enumerate(results, 1):
            status.update(f"Evaluating: {count} {what}")
            yield result
