"""The scores as plots: by share of clipped pixels, and by stops above the clip level."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import isfinite
from typing import Any

from ldr2hdr_cli.evaluation.metrics import BINS
from ldr2hdr_cli.evaluation.summary import BIN_NAMES, HEADLINE, METRICS, MethodScore
from model.errors import Ldr2hdrError


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
        by_share = summary.get("share") or summary.get("panorama") or []
        curves = (HEADLINE, "pu21_psnr_clipped", "cvvdp_jod", "light_rmse_stops")
        shares = [key for key in curves if _has_levels(by_share, key)]
        panels = Figure(figsize=(4.2 * (len(shares) + 2), 3.6), layout="constrained")
        axes = panels.subplots(1, len(shares) + 2, squeeze=False)[0]
        colours = {score.method: f"C{index % 10}" for index, score in enumerate(summary[kind])}
        for axis, key in zip(axes, shares, strict=False):
            _draw_shares(axis, by_share, key, colours)
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


def _has_levels(scores: Sequence[MethodScore], key: str) -> bool:
    return any(isfinite(m[key].mean) for score in scores for m in score.by_level.values())


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
