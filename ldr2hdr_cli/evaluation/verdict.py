"""The scores in words: which method is better, by how much, whether that can be claimed, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ldr2hdr_cli.evaluation.claims import LEAST_SCENES, difference
from ldr2hdr_cli.evaluation.summary import BIN_NAMES, HEADLINE, KINDS, MethodScore


def verdict(rows: Sequence[dict[str, Any]], summary: dict[str, list[MethodScore]], seed: int = 0) -> list[str]:
    """Sentences that say which method is better, by how much, whether that can be claimed, and where it comes from."""
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
        sentences.extend(_lifted(rows, summary, seed))
    return sentences


def _ranking(rows: Sequence[dict[str, Any]], kind: str, scores: Sequence[MethodScore], seed: int) -> str:
    best, second = scores[:2]
    gap = difference([row for row in rows if row["exposure"] == kind], HEADLINE, best.method, second.method, seed)
    text = (
        f"{KINDS[kind]}: {best.method} has the lowest error in clipped areas, {best.metrics[HEADLINE].mean:.2f} stops "
        f"(RMSE); next is {second.method} with {second.metrics[HEADLINE].mean:.2f}."
    )
    if gap.size.mean == gap.size.low == gap.size.high == 0:
        return text + " They are equal in every scene."
    if not gap.is_enough:
        return (
            f"{text} That does not tell which is better: a claim needs {LEAST_SCENES} scenes. They differ by "
            f"{gap.evidence}."
        )
    if gap.sign == 1:
        return f"{text} {best.method} is better by {gap.evidence}."
    return f"{text} Neither is shown to be better: they differ by {gap.evidence}."


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
        f"Against {other.method}, {best.method} gains most where the truth lies {BIN_NAMES[most]} stops above "
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


def _lifted(rows: Sequence[dict[str, Any]], summary: dict[str, list[MethodScore]], seed: int) -> list[str]:
    """Whether the best method for lamps harms what was barely over-exposed."""
    best = summary["share"][0].method
    mild = {score.method: score for score in summary["mild"]}
    if best == "clip" or not {best, "clip"} <= mild.keys():
        return []
    mine, plain = (mild[name].metrics[HEADLINE].mean for name in (best, "clip"))
    if not (isfinite(mine) and isfinite(plain)):
        return []
    pair = ("clip", best) if mine > plain else (best, "clip")
    gap = difference([row for row in rows if row["exposure"] == "mild"], HEADLINE, *pair, seed)
    numbers = (
        f"it is off by {mine:.2f} stops there ({_towards(mild[best].metrics['bias_stops_clipped'].mean)}), clip by "
        f"{plain:.2f}. They differ by {gap.evidence}."
    )
    if not gap.is_enough:
        return [f"These scenes are too few to tell whether {best} harms mild over-exposure: {numbers}"]
    if gap.sign != 1:
        return [f"{best} is not shown to harm mild over-exposure: {numbers}"]
    if pair[0] == best:
        return [f"{best} is better than clip in mild over-exposure too: {numbers}"]
    return [f"Beware: {best} harms mild over-exposure, where it takes bright surfaces for light sources: {numbers}"]
