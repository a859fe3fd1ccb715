"""`ldr2hdr evaluate`: from its options to tables, a verdict and files. What is heavy is imported as it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ldr2hdr_cli.evaluation.options import OPERATORS, EvaluateOptions
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.protocol import Case

DEFAULT_WEIGHTS = "default"
CLIPS_ON_PAGE = 6  # at most; four megabytes each
T = TypeVar("T")


def evaluate(options: EvaluateOptions) -> None:
    """Scores what the options name: a table and a verdict on stdout, files in `out`. Raises Ldr2hdrError."""
    if options.video:
        _evaluate_clips(options)
    elif options.save_inputs is not None:
        from ldr2hdr_cli.evaluation.protocol import save_as_png

        count = save_as_png(_cases(options), options.save_inputs)
        _say(f"Wrote {count} pictures to {_text(options.save_inputs)}.")
    else:
        _evaluate_pictures(options)


def _evaluate_pictures(options: EvaluateOptions) -> None:
    from rich.console import Console

    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.compare import Scoring, compare, methods_by_name
    from ldr2hdr_cli.evaluation.outcome import PictureScores
    from ldr2hdr_cli.evaluation.si_hdr import UNPROCESSED, unprocessed
    from model.atomic import make_folder

    cases = _cases(options)
    operators, predictions = _operators(options, OPERATORS), options.prediction or []
    methods = methods_by_name(operators, _networks(options), predictions, options.device, options.precision)
    if options.protocol == "si-hdr":
        methods = {UNPROCESSED: unprocessed, **methods}
    if not methods:
        raise Ldr2hdrError("There is nothing to compare: give --method, --weights or --prediction.")
    if options.out is not None:
        make_folder(options.out)
    where = "cuda" if options.device.startswith("cuda") else "cpu"
    scoring = Scoring(
        options.fit_curve,
        options.cvvdp,
        options.shown_peak,
        options.shown_white,
        where,
        options.hdrvdp,
        options.pixels_per_degree,
        options.protocol == "si-hdr",
    )
    results = compare(cases, methods, scoring, options.jobs or min(4, os.cpu_count() or 1))
    on_page = options.page_pictures if options.out is not None else 0
    scores = PictureScores.of(_watched(results, "pictures"), options.seed, on_page)
    console = Console()
    for one in scores.summary.values():
        console.print(*report.tables(one))
        console.print()
    _say(*scores.verdict)
    if options.out is not None:
        scores.write(options.out, {**_settings(options, "pictures"), "methods": list(methods)})
        _say("", f"Look at {_text(options.out / 'index.html')} in a browser.")


def _evaluate_clips(options: EvaluateOptions) -> None:
    others = options.pairs, options.photos, options.panorama, options.prediction, options.save_inputs
    if options.hdr is None or any(others) or options.protocol != "santos":
        raise Ldr2hdrError(
            "--video goes with --hdr DIR, and not with --pairs, --photos, --panorama, --prediction, --save-inputs or "
            "--protocol si-hdr."
        )
    from rich.console import Console

    from ldr2hdr_cli.evaluation.clip_report import clip_table
    from ldr2hdr_cli.evaluation.clips import made_clips
    from ldr2hdr_cli.evaluation.compare import network_name
    from ldr2hdr_cli.evaluation.flicker import network_clips, operator_clips
    from ldr2hdr_cli.evaluation.outcome import ClipScores
    from ldr2hdr_cli.evaluation.protocol import read_list
    from model.atomic import make_folder

    methods = [operator_clips(name) for name in _operators(options, ["clip"])]
    networks = _networks(options)
    methods += [network_clips(network_name(path), path, options.device, options.precision) for path in networks]
    if options.out is not None:
        make_folder(options.out)
    level = options.per_cents[len(options.per_cents) // 2]
    names = read_list(options.only) if options.only else None
    clips = made_clips(
        options.hdr, level=level, frames=options.frames, size=options.side, seed=options.seed, only=names
    )
    on_page = min(options.page_pictures, CLIPS_ON_PAGE) if options.out is not None else 0
    scores = ClipScores.of(
        _watched(clips, "clips"), methods, options.seed, options.shown_peak, options.shown_white, page_clips=on_page
    )
    Console().print(clip_table(scores.summary, scores.clip_count))
    _say(*scores.verdict)
    if options.out is not None:
        scores.write(options.out, {**_settings(options, "clips"), "level": level})
        _say("", f"Play them: open {_text(options.out / 'index.html')} in a browser.")


def _cases(options: EvaluateOptions) -> Iterator[Case]:
    from ldr2hdr_cli.evaluation.protocol import Protocol, given_cases, made_cases, photo_cases, read_list
    from ldr2hdr_cli.evaluation.si_hdr import anchored, si_hdr_cases, square

    given = [name for name in ("hdr", "pairs", "photos") if getattr(options, name) is not None]
    if len(given) > 1:
        raise Ldr2hdrError(f"Both --{given[0]} and --{given[1]} are given: give only one of them.")
    if options.panorama and given != ["hdr"]:
        raise Ldr2hdrError("--panorama goes with --hdr DIR alone.")
    by_si_hdr = options.protocol == "si-hdr"
    if by_si_hdr and (options.photos or options.panorama or options.fit_curve):
        raise Ldr2hdrError("--protocol si-hdr goes with --hdr or --pairs, and not with --panorama or --fit-curve.")
    names = read_list(options.only) if options.only else []
    if options.pairs is not None:
        cases = given_cases(*options.pairs, names)
        return (square(anchored(case, options.white), options.size or 0) for case in cases) if by_si_hdr else cases
    protocol = Protocol(
        options.per_cents,
        options.mild,
        options.seed,
        options.side,
        options.views,
        options.jpeg,
        names,
        options.panorama,
    )
    if options.photos is not None:
        return photo_cases(options.photos, protocol)
    if options.hdr is None:
        raise Ldr2hdrError(
            "There are no pictures to compare on: give --hdr DIR, --photos DIR, or --pairs LDR_DIR HDR_DIR."
        )
    if by_si_hdr:
        return si_hdr_cases(options.hdr, replace(protocol, size=options.size or 0), options.white)
    return made_cases(options.hdr, protocol)


def _operators(options: EvaluateOptions, default: Iterable[str]) -> list[str]:
    """Of --method, each once, in their order; "none" is none of them."""
    return list(dict.fromkeys(name for name in options.method or default if name != "none"))


def _networks(options: EvaluateOptions) -> list[Path | None]:
    """Of --weights, None for the default ones, which run too where neither networks nor operators are chosen."""
    names = options.weights or ([] if options.method else [DEFAULT_WEIGHTS])
    return [None if name == DEFAULT_WEIGHTS else Path(name) for name in names]


def _settings(options: EvaluateOptions, what: Literal["pictures", "clips"]) -> dict[str, Any]:
    """What the scores depend on, as results.json and the page quote it."""

    def quoted(value: Any) -> Any:
        if isinstance(value, tuple):
            return [_text(item) for item in value]
        return _text(value) if isinstance(value, Path) else value

    return {name: quoted(value) for name, value in options.deciding(what).items()}


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
