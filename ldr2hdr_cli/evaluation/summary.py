"""From rows of scores to means with intervals, for every method and kind of exposure.

A row is the dict of one picture and one method: `case`, `scene`, `exposure`, `level`, `method`, and what
`metrics.score` returns. Every mean counts each scene once, and every interval is the 95 % interval of a
bootstrap over scenes (Efron and Tibshirani 1993, chapter 13: percentiles), because views and exposures of one
scene are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from ldr2hdr_cli.evaluation.metrics import BINS
from ldr2hdr_cli.evaluation.si_hdr import CRF, FULL_REFERENCE, GAIN, metric_keys

HEADLINE = "rmse_stops_clipped"
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles
KINDS = {
    "share": "A share of the pixels clipped",
    "mild": "Mild over-exposure, no light source in view",
    "panorama": "Whole panoramas, a share of the pixels clipped",
    "clip_95": "SI-HDR, clipped at the 95th percentile",
    "clip_97": "SI-HDR, clipped at the 97th percentile",
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
    "pu21_ssim_clipped": Metric("PU21-SSIM (not recommended), clipped", "", 1, 3),
    "rmse_stops": Metric("RMSE", "stops", -1, 2),
    "log_l1": Metric("log L1", "", -1, 3),
    "mse_gamma": Metric("MSE (γ)", "", -1, 3),
    "pu21_psnr": Metric("PU21-PSNR", "dB", 1, 2),
    "pu21_ssim": Metric("PU21-SSIM (not recommended)", "", 1, 3),
    "pu21_vsi": Metric("PU21-VSI", "", 1, 4),
    "pu21_piqe": Metric("PU21-PIQE", "", -1, 2),
    "cvvdp_jod": Metric("ColorVideoVDP", "JOD", 1, 2),
    "hdrvdp3_q": Metric("HDR-VDP-3", "Q", 1, 2),
    "hdrvdp3_jod": Metric("HDR-VDP-3", "JOD", 1, 2),
    "hdrvdp2_q": Metric("HDR-VDP-2.2", "Q", 1, 2),
    "light_rmse_stops": Metric("light on a diffuse sphere, RMSE", "stops", -1, 2),
}


# Of the SI-HDR benchmark: after its fit of tone and colour, and above the unprocessed LDR picture.
METRICS |= {key + CRF: METRICS[key]._replace(label=f"{METRICS[key].label} +CRF") for key in FULL_REFERENCE}
METRICS |= {key + GAIN: METRICS[key]._replace(label=f"{METRICS[key].label}, gain") for key in metric_keys()}


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


def resampled(rows: Sequence[dict[str, Any]], seed: int) -> tuple[np.ndarray, list[str]]:
    """How often each scene is drawn, RESAMPLES×scenes, and the scenes in that order."""
    scenes = sorted({row["scene"] for row in rows})
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(scenes), np.full(len(scenes), 1 / len(scenes)), size=RESAMPLES), scenes


def _method_score(
    method: str, kind: str, rows: Sequence[dict[str, Any]], scenes: list[str], weights: np.ndarray
) -> MethodScore:
    mine = [row for row in rows if row["method"] == method]
    levels = sorted({row["level"] for row in mine}) if kind in ("share", "panorama") else []
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


def _rank(mean: float) -> float:
    return mean if isfinite(mean) else inf
