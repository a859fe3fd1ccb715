"""The scores in words: which method is better, by how much, whether that is sure, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ldr2hdr_cli.evaluation.summary import BIN_NAMES, HEADLINE, KINDS, MethodScore, difference


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
    """Whether the best method for lamps harms what was barely over-exposed."""
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
