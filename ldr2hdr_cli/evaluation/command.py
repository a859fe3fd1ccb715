"""`ldr2hdr evaluate`: what a person types, and nothing that is heavy to import before it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.compare import Method, Result
    from ldr2hdr_cli.evaluation.protocol import Case

DEFAULT_WEIGHTS = "default"
CLIPS_ON_PAGE = 6  # four megabytes each
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
    from ldr2hdr_cli.evaluation.compare import Scoring, compare

    cases = _cases(hdr, pairs, only, share, mild, seed, size, views, jpeg)
    if save_inputs is not None:
        return _save_inputs(cases, save_inputs)
    methods = _methods(method, weights, prediction, device, precision)
    scoring = Scoring(fit_curve, cvvdp, peak, white, "cuda" if device.startswith("cuda") else "cpu")
    results = compare(cases, methods, scoring, jobs or min(4, os.cpu_count() or 1))
    settings: dict[str, Any] = {
        "hdr": _text(hdr) if hdr else None,
        "pairs": [_text(folder) for folder in pairs] if pairs else None,
        "share": share, "mild": mild, "seed": seed, "size": size, "views": views, "jpeg": jpeg,
        "fit_curve": fit_curve, "peak": peak, "white": white, "methods": list(methods),
    }  # fmt: skip
    _report(results, settings, out, page_pictures if out is not None else 0)
    return None


def _evaluate_clips(
    hdr: Path, only: Path | None, settings: dict[str, Any], weights: list[str] | None, operators: list[str] | None,
    device: str, precision: str, out: Path | None, page_pictures: int,
) -> None:  # fmt: skip
    from rich.console import Console

    from ldr2hdr_cli.evaluation import clip_report
    from ldr2hdr_cli.evaluation.clips import made_clips
    from ldr2hdr_cli.evaluation.flicker import aligned, network_clips, operator_clips, score_clip
    from ldr2hdr_cli.evaluation.protocol import read_list
    from model.errors import Ldr2hdrError

    _known_precision(precision)
    names = ["clip"] if not operators else [name for name in operators if name != "none"]
    methods = [operator_clips(name) for name in _known_operators(names)]
    for text in weights or ([] if operators else [DEFAULT_WEIGHTS]):
        path = None if text == DEFAULT_WEIGHTS else Path(text)
        methods.append(network_clips(_name(path), path, device, precision))  # type: ignore[arg-type]
    if out is not None:
        _make(out)
    album = clip_report.ClipAlbum(min(page_pictures, CLIPS_ON_PAGE) if out is not None else 0)
    rows: list[dict[str, Any]] = []
    clips = made_clips(
        hdr,
        level=settings["level"],
        frames=settings["frames"],
        size=settings["size"],
        seed=settings["seed"],
        only=read_list(only) if only else None,
    )
    for clip in _watched(clips, "clips"):
        made = {name: aligned(pictures, clip) for way in methods for name, pictures in way(clip).items()}
        rows += [score_clip(p, clip, name, settings["peak"], settings["white"]) for name, p in made.items()]
        album.offer(clip, made)
    if not rows:
        raise Ldr2hdrError("No clip could be made: nothing in these panoramas outshines the rest; give others.")
    summary = clip_report.summarise_clips(rows, settings["seed"])
    said = clip_report.sentences(rows, summary, settings["seed"])
    console = Console()
    console.print(clip_report.clip_table(summary, len({row["case"] for row in rows})))
    console.print("\n".join(said), highlight=False, markup=False)
    if out is not None:
        _write_clips(out, rows, summary, settings, said, album)
        console.print(f"\nPlay them: open {_text(out / 'index.html')} in a browser.", highlight=False, markup=False)


def _write_clips(out: Path, rows: Any, summary: Any, settings: dict[str, Any], said: list[str], album: Any) -> None:
    import json

    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.clip_report import build_clip_page
    from model.atomic import write_atomically

    report.write_csv(out / "results.csv", rows)
    means = {method: {key: one._asdict() for key, one in all_.items()} for method, all_ in summary.items()}
    document = report.finite({"settings": settings, "verdict": said, "summary": means, "rows": rows})
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "results.json", text.encode() + b"\n")
    write_atomically(out / "index.html", build_clip_page(album, summary, said, settings).encode())


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


def _methods(
    operators: list[str] | None, weights: list[str] | None, predictions: list[Path] | None, device: str, precision: str
) -> dict[str, Method]:
    """Every method by the name that it has in the tables; the given ones, or all operators and the default weights."""
    from ldr2hdr_cli.convert.operators import METHODS
    from ldr2hdr_cli.evaluation.compare import network_method, operator_method, prediction_method

    _known_precision(precision)
    names = list(METHODS) if not operators else [name for name in operators if name != "none"]
    methods: dict[str, Method] = {name: operator_method(name) for name in _known_operators(names)}
    for text in weights or ([] if operators else [DEFAULT_WEIGHTS]):
        path = None if text == DEFAULT_WEIGHTS else Path(text)
        name = _unused(_name(path), methods)
        methods[name] = network_method(path, device, precision)  # type: ignore[arg-type]  # checked above
    for folder in predictions or []:
        methods[_unused(_text(folder.resolve().name), methods)] = prediction_method(folder)
    if not methods:
        raise typer.BadParameter("nothing to compare: give --method, --weights or --prediction")
    return methods


def _known_precision(name: str) -> None:
    if name not in ("auto", "fp32", "bf16", "fp16"):
        raise typer.BadParameter(f"--precision must be auto, fp32, bf16 or fp16, not {name!r}")


def _known_operators(names: list[str]) -> list[str]:
    """Each once, in their order."""
    from ldr2hdr_cli.convert.operators import METHODS

    if unknown := [name for name in names if name not in METHODS]:
        raise typer.BadParameter(f"--method must be one of {', '.join(METHODS)} or none, not {unknown[0]!r}")
    return list(dict.fromkeys(names))


def _text(value: str | Path) -> str:
    """A name as it is shown and written, with its control characters spelt out."""
    from ldr2hdr_cli.terminal import one_line

    return one_line(str(value))


def _name(weights: Path | None) -> str:
    """Of a network, in the tables."""
    return "ldr2hdr" if weights is None else _text(weights.stem)


def _unused(name: str, taken: Iterable[str]) -> str:
    candidates = [name, *(f"{name} ({number})" for number in range(2, 1000))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _save_inputs(cases: Iterator[Case], folder: Path) -> None:
    import imageio.v3 as iio
    from rich.console import Console

    from model.atomic import write_atomically

    _make(folder)
    count = 0
    for case in cases:
        codes = (case.ldr * 255 + 0.5).astype("uint8")
        encoded = iio.imwrite("<bytes>", codes, plugin="pillow", extension=".png")
        write_atomically(folder / f"{case.name}.png", encoded)
        count += 1
    Console().print(f"Wrote {count} pictures to {_text(folder)}.", highlight=False, markup=False)


def _report(results: Iterator[Result], settings: dict[str, Any], out: Path | None, page_pictures: int) -> None:
    from rich.console import Console

    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.page import Album
    from model.errors import Ldr2hdrError

    if out is not None:
        _make(out)
    album = Album(page_pictures)
    rows: list[dict[str, Any]] = []
    for result in _watched(results, "pictures"):
        rows.extend(result.rows)
        album.offer(result)
    if not rows:
        raise Ldr2hdrError("No picture could be made: every view is featureless; give pictures with detail.")
    summary = report.summarise(rows, settings["seed"])
    sentences = report.verdict(rows, summary, settings["seed"])
    console = Console()
    for scores in summary.values():
        console.print(report.table(scores), report.bin_table(scores), sep="\n\n")
        console.print()
    console.print("\n".join(sentences), highlight=False, markup=False)
    if out is not None:
        _write(out, rows, summary, settings, sentences, album)
        console.print(f"\nLook at {_text(out / 'index.html')} in a browser.", highlight=False, markup=False)


def _write(out: Path, rows: Any, summary: Any, settings: dict[str, Any], sentences: list[str], album: Any) -> None:
    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.page import build_page
    from model.atomic import write_atomically

    report.write_csv(out / "results.csv", rows)
    report.write_json(out / "results.json", rows, summary, settings, sentences)
    for format in ("svg", "png"):
        write_atomically(out / f"scores.{format}", report.figure(summary, format))
    write_atomically(out / "index.html", build_page(album, summary, sentences, settings).encode())


def _make(folder: Path) -> None:
    from model.errors import Ldr2hdrError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Ldr2hdrError(f"{folder} cannot be made ({error.strerror}); choose another folder.") from error


def _watched(results: Iterator[T], what: str) -> Iterator[T]:
    """Say on stderr how many are done, since a run takes minutes."""
    from rich.console import Console

    with Console(stderr=True).status("Evaluating") as status:
        for count, result in enumerate(results, 1):
            status.update(f"Evaluating: {count} {what}")
            yield result
