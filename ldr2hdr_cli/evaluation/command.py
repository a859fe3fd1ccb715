"""`ldr2hdr evaluate`: from its options to tables, a verdict and files. What is heavy is imported as it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ldr2hdr_cli.evaluation.options import OPERATORS, EvaluateOptions
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.cache import Cache
    from ldr2hdr_cli.evaluation.progress import Amount
    from ldr2hdr_cli.evaluation.protocol import Case

DEFAULT_WEIGHTS = "default"
CLIPS_ON_PAGE = 6  # at most; four megabytes each


class Planned(NamedTuple):
    """Cases, and how many there will be, of which scenes."""

    cases: Iterator[Case]
    amount: Amount


def evaluate(options: EvaluateOptions) -> None:
    """Scores what the options name: a table and a verdict on stdout, files in `out`. Raises Ldr2hdrError."""
    if options.save_inputs is not None and not options.video:
        from ldr2hdr_cli.evaluation.protocol import save_as_png

        count = save_as_png(_cases(options).cases, options.save_inputs)
        _say(f"Wrote {count} pictures to {_text(options.save_inputs)}.")
        return
    _require_packages(options)
    if options.video:
        _evaluate_clips(options)
    else:
        _evaluate_pictures(options)


def _require_packages(options: EvaluateOptions) -> None:
    """Before anything is read: a plain install lacks what scores need, and minutes later is too late to say so."""
    needed = {"scipy": "scipy"}
    if options.cvvdp and not options.video:
        needed["pycvvdp"] = "cvvdp"
    if options.out is not None:
        needed |= {"matplotlib": "matplotlib", "jinja2": "jinja2"}
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        without = ", or leave ColorVideoVDP out with --no-cvvdp" if missing == ["cvvdp"] else ""
        raise Ldr2hdrError(
            f"evaluate needs {', '.join(missing)}, which a plain install lacks: "
            f'pip install "ldr2hdr[evaluate]"{without}.'
        )


def _evaluate_pictures(options: EvaluateOptions) -> None:
    from rich.console import Console

    from ldr2hdr_cli.evaluation import report
    from ldr2hdr_cli.evaluation.cache import identities
    from ldr2hdr_cli.evaluation.compare import Scoring, compare, methods_by_name
    from ldr2hdr_cli.evaluation.outcome import PictureScores
    from ldr2hdr_cli.evaluation.progress import watched
    from ldr2hdr_cli.evaluation.si_hdr import UNPROCESSED, unprocessed
    from model.atomic import make_folder

    planned = _cases(options)
    operators, networks, predictions = _operators(options, OPERATORS), _networks(options), options.prediction or []
    methods = methods_by_name(operators, networks, predictions, options.device, options.precision)
    names = list(methods)  # of the operators, the networks and the predictions, in that order
    if options.protocol == "si-hdr":
        methods = {UNPROCESSED: unprocessed, **methods}
    if not methods:
        raise Ldr2hdrError("There is nothing to compare: give --method, --weights or --prediction.")
    if options.out is not None:
        make_folder(options.out)
    seen = _warned(options, dict(zip(names[len(operators) :], networks, strict=False)), planned.amount.scenes)
    cache = _cache(options, names, identities(operators, networks, options.device, options.precision))
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
    results = compare(planned.cases, methods, scoring, options.jobs or min(4, os.cpu_count() or 1), cache)
    results = watched(results, "pictures", planned.amount, lambda result: result.case.scene)
    on_page = options.page_pictures if options.out is not None else 0
    scores = PictureScores.of(results, options.seed, on_page, seen)
    console = Console()
    for one in scores.summary.values():
        console.print(*report.tables(one))
        console.print()
    _say(*scores.verdict)
    _note(cache)
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

    from ldr2hdr_cli.evaluation.cache import identities
    from ldr2hdr_cli.evaluation.clip_report import clip_table
    from ldr2hdr_cli.evaluation.clips import made_clips
    from ldr2hdr_cli.evaluation.compare import network_name
    from ldr2hdr_cli.evaluation.flicker import network_clips, operator_clips
    from ldr2hdr_cli.evaluation.outcome import ClipScores
    from ldr2hdr_cli.evaluation.progress import Amount, watched
    from ldr2hdr_cli.evaluation.protocol import read_list, scenes
    from ldr2hdr_cli.terminal import one_line
    from model.atomic import make_folder

    operators, networks = _operators(options, ["clip"]), _networks(options)
    ways = [operator_clips(name) for name in operators]
    ways += [network_clips(network_name(path), path, options.device, options.precision) for path in networks]
    called = [*operators, *map(network_name, networks)]
    known = zip(called, identities(operators, networks, options.device, options.precision), strict=True)
    methods = dict(zip((f"{name}: {identity}" for name, identity in known), ways, strict=True))
    if options.out is not None:
        make_folder(options.out)
    level = options.per_cents[len(options.per_cents) // 2]
    names = read_list(options.only) if options.only else []
    found = [path.stem for path in scenes(options.hdr, names)]
    seen = _warned(options, dict(zip(called[len(operators) :], networks, strict=True)), found)
    cache = _cache(options, [], [])
    clips = made_clips(
        options.hdr, level=level, frames=options.frames, size=options.side, seed=options.seed, only=names
    )
    on_page = min(options.page_pictures, CLIPS_ON_PAGE) if options.out is not None else 0
    clips = watched(clips, "clips", Amount(list(map(one_line, found)), 1, varies=True), lambda clip: clip.scene)
    scores = ClipScores.of(clips, methods, options.seed, options.shown_peak, options.shown_white, on_page, cache, seen)
    Console().print(clip_table(scores.summary, scores.clip_count))
    _say(*scores.verdict)
    _note(cache)
    if options.out is not None:
        scores.write(options.out, {**_settings(options, "clips"), "level": level})
        _say("", f"Play them: open {_text(options.out / 'index.html')} in a browser.")


def _cases(options: EvaluateOptions) -> Planned:
    from ldr2hdr_cli.evaluation.progress import Amount
    from ldr2hdr_cli.evaluation.protocol import (
        Protocol,
        given_cases,
        made_cases,
        photo_cases,
        photographs,
        read_list,
        scenes,
    )
    from ldr2hdr_cli.evaluation.si_hdr import anchored, data_set, si_hdr_cases, square

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
        inputs = {path.stem for path in options.pairs[0].glob("*")}
        found = [path.stem for path in scenes(options.pairs[1], names) if path.stem in inputs]
        cases = given_cases(*options.pairs, names)
        if by_si_hdr:
            cases = (square(anchored(case, options.white), options.size or 0) for case in cases)
        return Planned(cases, Amount(found, 1))
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
        found = [path.stem for path in photographs(options.photos, names)]
        return Planned(photo_cases(options.photos, protocol), Amount(found, len(options.per_cents)))
    if options.hdr is None:
        raise Ldr2hdrError(
            "There are no pictures to compare on: give --hdr DIR, --photos DIR, or --pairs LDR_DIR HDR_DIR."
        )
    if by_si_hdr:
        cases = si_hdr_cases(options.hdr, replace(protocol, size=options.size or 0), options.white)
        if (root := data_set(options.hdr)) is not None:
            found = [path.stem for path in scenes(root / "reference", names)]
            return Planned(cases, Amount(found, len(options.per_cents)))
        found = [path.stem for path in scenes(options.hdr, names)]
        return Planned(cases, Amount(found, options.views * len(options.per_cents), varies=True))
    found = [path.stem for path in scenes(options.hdr, names)]
    if options.panorama:
        return Planned(made_cases(options.hdr, protocol), Amount(found, len(options.per_cents)))
    each = options.views * (len(options.per_cents) + options.mild)
    return Planned(made_cases(options.hdr, protocol), Amount(found, each, varies=True))


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


def _warned(options: EvaluateOptions, networks: Mapping[str, Path | None], scenes: Sequence[str]) -> list[str]:
    """Sentences about scenes that a network was trained on, said on stderr before the scores are made."""
    from rich.console import Console

    from ldr2hdr_cli.evaluation.trained_on import warnings

    said = [_text(sentence) for sentence in warnings(networks, scenes, photographs=options.photos is not None)]
    for sentence in said:
        Console(stderr=True).print(f"Warning: {sentence}", highlight=False, markup=False)
    return said


def _cache(options: EvaluateOptions, names: Sequence[str], identities: Sequence[str]) -> Cache | None:
    """names: of methods, of which the first have the identities."""
    from ldr2hdr_cli.evaluation.cache import Cache

    folder = options.cache_folder
    return None if folder is None else Cache(folder, dict(zip(names, identities, strict=False)))


def _note(cache: Cache | None) -> None:
    """On stderr: how much was known."""
    from rich.console import Console

    if cache is not None and cache.said:
        Console(stderr=True).print(cache.said, highlight=False, markup=False)
