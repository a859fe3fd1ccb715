"""What is said and shown of converted clips: a table, sentences, and a page that plays them."""

import base64
import io
from collections.abc import Sequence
from math import isfinite
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ldr2hdr_cli.evaluation.claims import LEAST_SCENES, difference
from ldr2hdr_cli.evaluation.clips import Clip
from ldr2hdr_cli.evaluation.flicker import ALONE, along, tracked
from ldr2hdr_cli.evaluation.report import literal
from ldr2hdr_cli.evaluation.summary import Estimate, estimate, per_scene, ratio, resampled
from ldr2hdr_cli.evaluation.templates import render
from model.errors import Ldr2hdrError

COLUMNS = {  # label, digits, sign
    "flicker": ("flicker↓", 3, ""),
    "flicker_p99": ("99 %↓", 2, ""),
    "rmse_stops_clipped": ("RMSE↓", 2, ""),
    "bias_stops_clipped": ("bias→0", 2, "+"),
    "pu21_psnr": ("PSNR↑", 2, ""),
}
Summary = dict[str, dict[str, Estimate]]
EXPOSURES = (0, -3)  # stops, at which the page shows clips
SIDE, QUALITY = 256, 82  # of its pictures


def summarise_clips(rows: Sequence[dict[str, Any]], seed: int = 0) -> Summary:
    """Means over scenes with the 95 % interval of a bootstrap over scenes, by method, in the order of the rows."""
    weights, scenes = resampled(rows, seed)
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        method: {
            key: estimate(per_scene([row for row in rows if row["method"] == method], scenes, key), weights)
            for key in COLUMNS
        }
        for method in methods
    }


def alone(method: str) -> str:
    """The name of the same network's frame by frame."""
    return method.removesuffix(", strong") + ALONE


def against_alone(rows: Sequence[dict[str, Any]], method: str, seed: int = 0) -> tuple[Estimate, Estimate] | None:
    """Flicker and RMSE of a method as shares of the same network's frame by frame; None where that was not run."""
    pairs = [[row for row in rows if row["method"] == one] for one in (method, alone(method))]
    if not all(pairs):
        return None
    weights, scenes = resampled(rows, seed)
    shares = []
    for key in ("flicker", "rmse_stops_clipped"):
        mine, without = (np.nan_to_num(per_scene(pair, scenes, key)) for pair in pairs)
        if not without.any():
            return None
        shares.append(ratio(mine, without, weights))
    return shares[0], shares[1]


def sentences(rows: Sequence[dict[str, Any]], summary: Summary, seed: int = 0) -> list[str]:
    """What the filter does to flicker, whether that can be claimed, and what it costs."""
    said = []
    for method, estimates in summary.items():
        shares = against_alone(rows, method, seed)
        if shares is None:
            continue
        flicker, error = shares
        said.append(
            f"{method} flickers by {estimates['flicker'].mean:.3f} stops a frame in clipped areas, {flicker.mean:.2f} "
            f"of what it does frame by frame{_between(flicker.low, flicker.high, '.2f')}; its error there is "
            f"{100 * (error.mean - 1):+.1f} %{_between(100 * (error.low - 1), 100 * (error.high - 1), '+.1f')}. "
            + _steadier(rows, method, seed)
        )
    return said or ["Nothing here was made both frame by frame and with the temporal filter."]


def _steadier(rows: Sequence[dict[str, Any]], method: str, seed: int) -> str:
    gap = difference(rows, "flicker", method, alone(method), seed)
    if not gap.is_enough:
        return f"Whether it is steadier cannot be told from {gap.over}: a claim needs {LEAST_SCENES}."
    found = {1: "It is steadier", -1: "It is less steady", 0: "It is not shown to be steadier"}[gap.sign]
    return f"{found} ({gap.test}, {gap.over})."


def _between(low: float, high: float, digits: str) -> str:
    return f" (95 % interval {low:{digits}} to {high:{digits}})" if isfinite(low) else ""


def clip_table(summary: Summary, amount: int) -> Table:
    """For a terminal, steadiest first."""
    table = Table(title=f"{amount} rendered clips", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.caption = "Flicker (stops a frame), RMSE and bias (stops) are of clipped areas; PSNR (dB) is PU21's."
    table.caption_justify = "left"
    table.add_column("method", overflow="fold")
    for label, _, _ in COLUMNS.values():
        table.add_column(label, justify="right", no_wrap=True)
    for method, estimates in sorted(summary.items(), key=lambda one: _rank(one[1]["flicker"].mean)):
        cells = (_shown(estimates[key].mean, *COLUMNS[key][1:]) for key in COLUMNS)
        table.add_row(literal(method), *cells)
    return table


class ClipAlbum:
    """The first `limit` clips, as what the page plays; the others are forgotten as they come by."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries: list[dict[str, Any]] = []

    @property
    def is_open(self) -> bool:
        """Whether the next clip is taken."""
        return len(self.entries) < self.limit

    def offer(self, clip: Clip, made: dict[str, list[np.ndarray]]) -> None:
        """made: aligned frames by method."""
        if not self.is_open:
            return
        panels = {"source": [frame.ldr**2 for frame in clip.frames], **made}
        panels["truth"] = [frame.truth for frame in clip.frames]
        track = tracked(clip)
        self.entries.append(
            {
                "name": f"{clip.scene}, {clip.motion}",
                "panels": list(panels),
                "pictures": {
                    str(ev): [[_jpeg(p, ev) for p in frames] for frames in panels.values()] for ev in EXPOSURES
                },
                "track": None if track is None else (track / len(clip.frames[0].ldr)).round(4).tolist(),
                "plot": None if track is None else _plot({name: along(p, clip, track) for name, p in made.items()}),
            }
        )


def build_clip_page(
    album: ClipAlbum, summary: Summary, said: Sequence[str], settings: dict[str, Any], fps: float = 24
) -> str:
    """One HTML file that needs no network; names are data, escaped by the template or put in place as text."""
    rows = [
        {
            "method": method,
            "cells": [
                {"mean": _shown(estimates[key].mean, *COLUMNS[key][1:]), "interval": _interval(estimates[key], key)}
                for key in COLUMNS
            ],
        }
        for method, estimates in summary.items()
    ]
    return render(
        "clips.html",
        verdict=said,
        columns=[label for label, _, _ in COLUMNS.values()],
        rows=rows,
        settings=", ".join(f"{key} {value}" for key, value in settings.items() if value),
        data={"fps": fps, "clips": album.entries},
    )


def _jpeg(linear: np.ndarray, stops: float) -> str:
    small = cv2.resize(linear, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if len(linear) > SIDE else linear
    shown = np.clip(small * np.float32(2.0**stops), 0, 1) ** (1 / 2.2)
    codes = np.rint(shown * 255).astype(np.uint8)
    encoded = iio.imwrite("<bytes>", codes, plugin="pillow", extension=".jpg", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def _plot(lines: dict[str, list[float]]) -> str:
    """The tracked highlight over time, as an SVG picture."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Ldr2hdrError('Plots need matplotlib: pip install "ldr2hdr[evaluate]".') from error
    ink = "#d8d8d8"
    style: dict[Any, Any] = {
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": "#808080", "xtick.color": ink, "ytick.color": ink,
        "font.size": 9.0, "svg.hashsalt": "ldr2hdr", "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 3), layout="constrained")
        axis = figure.subplots()
        for name, values in lines.items():
            axis.plot(range(1, len(values) + 1), values, lw=1.4, label=name)
        axis.axhline(0, color="#808080", lw=1)
        axis.set_xlabel("frame")
        axis.set_ylabel("stops off the truth")
        axis.set_facecolor("none")
        axis.grid(alpha=0.2, color=ink)
        axis.legend(frameon=False, labelcolor=ink, loc="center left", bbox_to_anchor=(1, 0.5))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(value: float, digits: int, sign: str) -> str:
    return f"{value:{sign}.{digits}f}" if isfinite(value) else "∞" if value == np.inf else "–"


def _interval(one: Estimate, key: str) -> str:
    _, digits, sign = COLUMNS[key]
    return f"{one.low:{sign}.{digits}f} to {one.high:{sign}.{digits}f}" if isfinite(one.low) else ""


def _rank(value: float) -> float:
    return value if isfinite(value) else np.inf
