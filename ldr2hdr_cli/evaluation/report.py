"""From rows of scores to what is read: means with intervals, a verdict in words, tables, CSV, JSON, plots.

A row is the dict of one picture and one method: `case`, `scene`, `exposure`, `level`, `method`, and what
`metrics.score` returns. Every mean counts each scene once, and every interval is the 95 % interval of a
bootstrap over scenes (Efron and Tibshirani 1993, chapter 13: percentiles), because views and exposures of one
scene are not independent.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ldr2hdr_cli.evaluation.metrics import BINS
from model.atomic import write_atomically
from model.errors import Ldr2hdrError

HEADLINE = "rmse_stops_clipped"
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles
KINDS = {
    "share": "A share of the pixels clipped",
    "mild": "Mild over-exposure, no light source in view",
    "given": "Given pairs",
}
BIN_NAMES = tuple(f"{low:g}–{high:g}" if high != inf else f"over {low:g}" for low, high in BINS)


class Metric(NamedTuple):
    """How a metric is shown. better: −1 where less is better, 1 where more is, 0 where nearest to 0 is."""

    label: str
    unit: str
    better: int
    digits: int


METRICS = {
    "rmse_stops_clipped": Metric("RMSE, clipped", "stops", -1, 2),
    "bias_stops_clipped": Metric("bias, clipped", "stops", 0, 2),
    "chroma_error_clipped": Metric("Δu′v′, clipped", "", -1, 4),
    "log_l1_clipped": Metric("log L1, clipped", "", -1, 3),
    "mse_gamma_clipped": Metric("MSE (γ), clipped", "", -1, 3),
    "pu21_psnr_clipped": Metric("PU21-PSNR, clipped", "dB", 1, 2),
    "pu21_ssim_clipped": Metric("PU21-SSIM, clipped", "", 1, 3),
    "rmse_stops": Metric("RMSE", "stops", -1, 2),
    "log_l1": Metric("log L1", "", -1, 3),
    "mse_gamma": Metric("MSE (γ)", "", -1, 3),
    "pu21_psnr": Metric("PU21-PSNR", "dB", 1, 2),
    "pu21_ssim": Metric("PU21-SSIM", "", 1, 3),
    "cvvdp_jod": Metric("ColorVideoVDP", "JOD", 1, 2),
}
SHOWN = (  # in the terminal and at the top of the page; the files hold all
    "rmse_stops_clipped",
    "bias_stops_clipped",
    "chroma_error_clipped",
    "pu21_psnr_clipped",
    "mse_gamma",
    "pu21_ssim",
    "cvvdp_jod",
)


class Estimate(NamedTuple):
    """A mean and its 95 % interval; NaN where no picture has the metric."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class BinScore:
    """Errors of the values whose truth lies `low` to `high` stops above the clip level."""

    low: float
    high: float
    count: int
    bias: Estimate
    rmse: Estimate


@dataclass(frozen=True)
class MethodScore:
    """One method under one kind of exposure. by_level: HEADLINE and the other metrics for each asked share."""

    method: str
    exposure: str
    cases: int
    scenes: int
    metrics: dict[str, Estimate]
    bins: tuple[BinScore, ...]
    by_level: dict[float, dict[str, Estimate]]


def summarise(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, list[MethodScore]]:
    """Means and intervals for every kind of exposure present, each list sorted best first by `HEADLINE`.

    All methods are resampled with the same scenes, so their differences can be judged in pairs.
    """
    summary = {}
    for kind in KINDS:
        chosen = [row for row in rows if row["exposure"] == kind]
        if chosen:
            weights, scenes = resampled(chosen, seed)
            methods = list(dict.fromkeys(row["method"] for row in chosen))
            scores = [_method_score(m, kind, chosen, scenes, weights) for m in methods]
            summary[kind] = sorted(scores, key=lambda score: _rank(score.metrics[HEADLINE].mean))
    return summary


def difference(rows: Sequence[dict[str, Any]], kind: str, first: str, second: str, seed: int = 0) -> Estimate:
    """`HEADLINE` of `second` minus that of `first`, scene by scene, with its interval: above 0, `first` is better."""
    chosen = [row for row in rows if row["exposure"] == kind and row["method"] in (first, second)]
    weights, scenes = resampled(chosen, seed)
    values = {m: per_scene([r for r in chosen if r["method"] == m], scenes, HEADLINE) for m in (first, second)}
    return estimate(values[second] - values[first], weights)


def verdict(rows: Sequence[dict[str, Any]], summary: dict[str, list[MethodScore]], seed: int = 0) -> list[str]:
    """Sentences that say which method is better, by how much, whether that is sure, and where it comes from."""
    sentences = []
    for kind, scores in summary.items():
        scores = [score for score in scores if isfinite(score.metrics[HEADLINE].mean)]
        if not scores:
            sentences.append(f"{KINDS[kind]}: nothing is clipped in these pictures, so there is nothing to compare.")
        elif len(scores) == 1:
            only = scores[0]
            error = only.metrics[HEADLINE].mean
            sentences.append(f"{KINDS[kind]}: {only.method} is off by {error:.2f} stops (RMSE) in clipped areas.")
        else:
            sentences.append(_ranking(rows, kind, scores, seed))
        if scores:
            sentences.append(_reason(scores))
    if "share" in summary and "mild" in summary:
        sentences.extend(_lifted(summary))
    return sentences


SHORT = {  # headings that fit a terminal of 80 columns
    "rmse_stops_clipped": "RMSE",
    "bias_stops_clipped": "bias",
    "chroma_error_clipped": "Δu′v′",
    "pu21_psnr_clipped": "PSNR",
    "mse_gamma": "MSE γ",
    "pu21_ssim": "SSIM",
    "cvvdp_jod": "JOD",
}


def table(scores: Sequence[MethodScore]) -> Table:
    """The means of one kind of exposure, best first, for a terminal; of the intervals, that of `HEADLINE`."""
    kind = scores[0].exposure
    shown = [key for key in SHOWN if any(isfinite(score.metrics[key].mean) for score in scores)]
    result = Table(
        title=f"{KINDS[kind]} ({_amount(scores[0])})",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    result.caption = "Of clipped areas: RMSE and bias (stops), Δu′v′, PU21-PSNR (dB). The others are of whole pictures."
    result.caption_justify = "left"
    result.add_column("method", overflow="fold")
    for key in shown:
        arrow = {-1: "↓", 0: "→0", 1: "↑"}[METRICS[key].better]
        result.add_column(f"{SHORT[key]}{arrow}", justify="right", no_wrap=True)
        if key == HEADLINE:
            result.add_column("95 %", justify="right", no_wrap=True)
    for score in scores:
        cells = []
        for key in shown:
            cells.append(show(score.metrics[key], key, False))
            if key == HEADLINE:
                _, low, high = score.metrics[key]
                cells.append(f"{low:.2f}–{high:.2f}" if isfinite(low) else "–")
        result.add_row(literal(score.method), *cells)
    return result


def bin_table(scores: Sequence[MethodScore]) -> Table:
    """Bias and RMSE in stops by how far the truth lies above the clip level."""
    result = Table(
        title="Bias / RMSE in stops, by stops of the truth above the clip level",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    result.add_column("method", overflow="fold")
    for name in BIN_NAMES:
        result.add_column(name, justify="right", no_wrap=True)
    for score in scores:
        cells = ("–" if not b.count else f"{b.bias.mean:+.2f}/{b.rmse.mean:.2f}" for b in score.bins)
        result.add_row(literal(score.method), *cells)
    return result


def show(estimate: Estimate, key: str, interval: bool = True) -> str:
    """An estimate as text: `1.62 (1.40–1.85)`; a dash where there is none."""
    digits = METRICS[key].digits
    if not isfinite(estimate.mean):
        return "∞" if estimate.mean == inf else "–"
    sign = "+" if METRICS[key].better == 0 else ""
    mean = f"{estimate.mean:{sign}.{digits}f}"
    if not interval or not isfinite(estimate.low):
        return mean
    return f"{mean} ({estimate.low:{sign}.{digits}f} to {estimate.high:{sign}.{digits}f})"


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line for each picture and method; a bin's columns are `count_1_2`, `bias_1_2`, `rmse_1_2`.

    Text that a spreadsheet would take for a formula, as a file's name may be, is quoted with an apostrophe.
    """
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_atomically(path, text.getvalue().encode())


def write_json(
    path: Path,
    rows: Sequence[dict[str, Any]],
    summary: dict[str, list[MethodScore]],
    settings: dict[str, Any],
    sentences: Sequence[str],
) -> None:
    """Everything: the settings of the run, the verdict, the means with intervals, the rows. NaN and ∞ are null."""
    document = {
        "settings": settings,
        "verdict": list(sentences),
        "summary": {kind: [_as_dict(score) for score in scores] for kind, scores in summary.items()},
        "rows": list(rows),
    }
    text = json.dumps(finite(document), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def resampled(rows: Sequence[dict[str, Any]], seed: int) -> tuple[np.ndarray, list[str]]:
    """How often each scene is drawn, RESAMPLES×scenes, and the scenes in that order."""
    scenes = sorted({row["scene"] for row in rows})
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(scenes), np.full(len(scenes), 1 / len(scenes)), size=RESAMPLES), scenes


def _method_score(
    method: str, kind: str, rows: Sequence[dict[str, Any]], scenes: list[str], weights: np.ndarray
) -> MethodScore:
    mine = [row for row in rows if row["method"] == method]
    levels = sorted({row["level"] for row in mine}) if kind == "share" else []
    return MethodScore(
        method,
        kind,
        cases=len(mine),
        scenes=len({row["scene"] for row in mine}),
        metrics=_metrics(mine, scenes, weights),
        bins=tuple(_bin_score(mine, scenes, weights, index) for index in range(len(BINS))),
        by_level={level: _metrics([row for row in mine if row["level"] == level], scenes, weights) for level in levels},
    )


def _metrics(rows: Sequence[dict[str, Any]], scenes: list[str], weights: np.ndarray) -> dict[str, Estimate]:
    return {key: estimate(per_scene(rows, scenes, key), weights) for key in METRICS}


def per_scene(rows: Sequence[dict[str, Any]], scenes: list[str], key: str) -> np.ndarray:
    """Mean of a metric over each scene's pictures; NaN for a scene without it."""
    values: dict[str, list[float]] = {scene: [] for scene in scenes}
    for row in rows:
        value = row.get(key, nan)
        if not np.isnan(value):
            values[row["scene"]].append(value)
    return np.array([np.mean(values[scene]) if values[scene] else nan for scene in scenes])


def estimate(per_scene: np.ndarray, weights: np.ndarray) -> Estimate:
    valid = ~np.isnan(per_scene)
    if not valid.any():
        return Estimate(nan, nan, nan)
    values = np.where(valid, per_scene, 0.0)
    if not np.isfinite(values).all():
        return Estimate(float(values[valid].mean()), nan, nan)
    return ratio(values, valid.astype(np.float64), weights)


def ratio(total: np.ndarray, count: np.ndarray, weights: np.ndarray) -> Estimate:
    """Σ total / Σ count over scenes, and over each resampling of the scenes; one scene has no interval."""
    mean = float(total.sum() / count.sum())
    if np.count_nonzero(count) < 2:
        return Estimate(mean, nan, nan)
    drawn = weights @ count
    low, high = np.percentile((weights @ total)[drawn > 0] / drawn[drawn > 0], INTERVAL)
    return Estimate(mean, float(low), float(high))


def _bin_score(rows: Sequence[dict[str, Any]], scenes: list[str], weights: np.ndarray, index: int) -> BinScore:
    """Pooled over values, so that a scene with ten of them in a bin does not weigh as much as one with 10,000."""
    count, bias, square = (np.zeros(len(scenes)) for _ in range(3))
    for row in rows:
        entry, scene = row["by_stops_above"][index], scenes.index(row["scene"])
        if entry["count"]:
            count[scene] += entry["count"]
            bias[scene] += entry["count"] * entry["bias"]
            square[scene] += entry["count"] * entry["rmse"] ** 2
    low, high = BINS[index]
    if not count.any():
        return BinScore(low, high, 0, Estimate(nan, nan, nan), Estimate(nan, nan, nan))
    rmse = Estimate(*(float(np.sqrt(value)) for value in ratio(square, count, weights)))
    return BinScore(low, high, int(count.sum()), ratio(bias, count, weights), rmse)


def _ranking(rows: Sequence[dict[str, Any]], kind: str, scores: Sequence[MethodScore], seed: int) -> str:
    best, second = scores[:2]
    gap = difference(rows, kind, best.method, second.method, seed)
    text = (
        f"{KINDS[kind]}: {best.method} is best, off by {best.metrics[HEADLINE].mean:.2f} stops (RMSE) in clipped "
        f"areas; next is {second.method}, off by {second.metrics[HEADLINE].mean:.2f}."
    )
    if gap.mean == gap.low == gap.high == 0:
        return text + " They are equal in every scene."
    if not isfinite(gap.low):
        return text + " One scene cannot tell whether that is chance."
    spread = f"the difference is {gap.mean:.2f} stops, 95 % interval {gap.low:.2f} to {gap.high:.2f}"
    return text + (f" That is sure: {spread}." if gap.low > 0 else f" That may be chance: {spread}.")


def _reason(scores: Sequence[MethodScore]) -> str:
    """Where the best method's lead over `clip`, or over the next one, comes from, bin by bin."""
    best = scores[0]
    other = next((score for score in scores[1:] if score.method == "clip"), scores[1] if len(scores) > 1 else None)
    filled = [index for index, entry in enumerate(best.bins) if entry.count]
    if not filled:
        return "No clipped value lies above the clip level, so the bins say nothing."
    if other is None:
        worst = max(filled, key=lambda index: best.bins[index].rmse.mean)
        return f"Its error is largest {BIN_NAMES[worst]} stops above the clip level: {_bin_text(best, worst)}."
    gains = {i: other.bins[i].rmse.mean - best.bins[i].rmse.mean for i in filled}
    most = max(gains, key=lambda i: gains[i])
    least = min(gains, key=lambda i: gains[i])
    text = (
        f"Why: against {other.method}, {best.method} gains most where the truth lies {BIN_NAMES[most]} stops above "
        f"the clip level ({_bin_text(best, most)}; {other.method} is {_bin_text(other, most)})"
        if gains[most] > 0
        else f"In no bin of stops is {best.method} ahead of {other.method}"
    )
    if gains[least] < 0 and least != most:
        text += (
            f", and loses {BIN_NAMES[least]} stops above it ({_bin_text(best, least)}; {other.method} is "
            f"{_bin_text(other, least)})"
        )
    return text + "."


def _bin_text(score: MethodScore, index: int) -> str:
    entry = score.bins[index]
    return f"off by {entry.rmse.mean:.2f} stops, {_towards(entry.bias.mean)}"


def _towards(bias: float) -> str:
    """A bias in words: `1.79 too dark`."""
    if abs(bias) < 0.05:
        return "neither too dark nor too bright"
    return f"{abs(bias):.2f} too {'bright' if bias > 0 else 'dark'}"


def _lifted(summary: dict[str, list[MethodScore]]) -> list[str]:
    """Whether the best method for lamps harms what was barely over."""
    best = summary["share"][0].method
    mild = next((score for score in summary["mild"] if score.method == best), None)
    clip = next((score for score in summary["mild"] if score.method == "clip"), None)
    if mild is None or clip is None or best == "clip":
        return []
    mine, plain = mild.metrics[HEADLINE].mean, clip.metrics[HEADLINE].mean
    if not (isfinite(mine) and isfinite(plain)):
        return []
    bias = _towards(mild.metrics["bias_stops_clipped"].mean)
    if mine <= plain:
        return [f"{best} also leaves mild over-exposure alone: {mine:.2f} stops there, against {plain:.2f} for clip."]
    return [
        f"Beware: {best} harms mild over-exposure: it is off by {mine:.2f} stops there ({bias}), against "
        f"{plain:.2f} for clip. It takes bright surfaces for light sources."
    ]


def _amount(score: MethodScore) -> str:
    pictures = "1 picture" if score.cases == 1 else f"{score.cases} pictures"
    return f"{pictures} of {score.scenes} scene{'' if score.scenes == 1 else 's'}"


def literal(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _rank(mean: float) -> float:
    return mean if isfinite(mean) else inf


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key != "by_stops_above"}
    for entry in row.get("by_stops_above", []):
        name = f"{entry['from']:g}_{'inf' if entry['to'] is None else format(entry['to'], 'g')}"
        flat.update({f"{key}_{name}": entry[key] for key in ("count", "bias", "rmse")})
    return {key: _cell(value) for key, value in flat.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return ""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if is_formula else value


def _as_dict(score: MethodScore) -> dict[str, Any]:
    return {
        "method": score.method,
        "cases": score.cases,
        "scenes": score.scenes,
        "metrics": {key: value._asdict() for key, value in score.metrics.items()},
        "by_stops_above": [
            {"from": b.low, "to": b.high, "count": b.count, "bias": b.bias._asdict(), "rmse": b.rmse._asdict()}
            for b in score.bins
        ],
        "by_share": {
            f"{level:g}": {key: value._asdict() for key, value in metrics.items()}
            for level, metrics in score.by_level.items()
        },
    }


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def figure(summary: dict[str, list[MethodScore]], format: str = "svg", dark: bool = False) -> bytes:
    """Score against share of clipped pixels (figure 8 of Santos et al. 2020), and errors by stops above clip.

    format: "svg" or "png". dark: light ink on nothing, for the page. Raises Ldr2hdrError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Ldr2hdrError('Plots need matplotlib: pip install "ldr2hdr[evaluate]".') from error
    ink = "#d8d8d8" if dark else "#222222"
    style: dict[Any, Any] = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": "#808080",
        "xtick.color": ink,
        "ytick.color": ink,
        "font.size": 9.0,
        "svg.hashsalt": "ldr2hdr",  # the same bytes for the same scores
        "text.parse_math": False,  # names of methods are text, not formulas
    }
    with matplotlib.rc_context(style):
        kind = next(iter(summary))
        shares = [key for key in (HEADLINE, "pu21_psnr_clipped", "cvvdp_jod") if _has_levels(summary, key)]
        panels = Figure(figsize=(4.2 * (len(shares) + 2), 3.6), layout="constrained")
        axes = panels.subplots(1, len(shares) + 2, squeeze=False)[0]
        colours = {score.method: f"C{index % 10}" for index, score in enumerate(summary[kind])}
        for axis, key in zip(axes, shares, strict=False):
            _draw_shares(axis, summary["share"], key, colours)
        _draw_bins(axes[-2], summary[kind], colours, "rmse")
        _draw_bins(axes[-1], summary[kind], colours, "bias")
        handles, labels = axes[-1].get_legend_handles_labels()
        panels.legend(
            handles, labels, loc="outside lower center", ncols=min(8, len(labels)), frameon=False, labelcolor=ink
        )
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.2, color=ink)
            axis.set_facecolor("none")
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
        panels.savefig(buffer, format=format, dpi=150, metadata=metadata, facecolor="none" if dark else "white")
    return buffer.getvalue()


def _has_levels(summary: dict[str, list[MethodScore]], key: str) -> bool:
    return any(isfinite(m[key].mean) for score in summary.get("share", []) for m in score.by_level.values())


def _draw_shares(axis: Any, scores: Sequence[MethodScore], key: str, colours: dict[str, str]) -> None:
    metric = METRICS[key]
    for score in scores:
        levels = list(score.by_level)
        estimates = [score.by_level[level][key] for level in levels]
        axis.plot(levels, [e.mean for e in estimates], "o-", ms=3, color=colours[score.method], lw=1.4)
        axis.fill_between(
            levels,
            [e.low for e in estimates],
            [e.high for e in estimates],
            color=colours[score.method],
            alpha=0.12,
            lw=0,
        )
    axis.set_xlabel("pixels clipped, %")
    unit = f", {metric.unit}" if metric.unit else ""
    axis.set_title(f"{metric.label}{unit} ({'less' if metric.better < 0 else 'more'} is better)", fontsize=9)
    axis.set_xticks(levels)


def _draw_bins(axis: Any, scores: Sequence[MethodScore], colours: dict[str, str], what: str) -> None:
    for score in scores:
        estimates = [getattr(entry, what).mean for entry in score.bins]
        axis.plot(range(len(BINS)), estimates, "o-", ms=3, lw=1.4, color=colours[score.method], label=score.method)
    if what == "bias":
        axis.axhline(0, color="#808080", lw=1)
    axis.set_xticks(range(len(BINS)), BIN_NAMES)
    axis.set_xlabel("stops of the truth above the clip level")
    axis.set_title("RMSE, stops" if what == "rmse" else "bias, stops (below 0: too dark)", fontsize=9)
