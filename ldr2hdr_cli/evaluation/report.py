"""The scores as they are read: tables for a terminal, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ldr2hdr_cli.evaluation.si_hdr import GAIN, UNPROCESSED
from ldr2hdr_cli.evaluation.summary import BIN_NAMES, HEADLINE, KINDS, METRICS, Estimate, MethodScore
from model.atomic import write_atomically

SHOWN = (  # in the terminal and at the top of the page; the files hold all
    "rmse_stops_clipped",
    "bias_stops_clipped",
    "chroma_error_clipped",
    "pu21_psnr_clipped",
    "mse_gamma",
    "pu21_vsi",
    "cvvdp_jod",
    "hdrvdp3_q",
    "hdrvdp2_q",
    "light_rmse_stops",
)
SHORT = {  # headings that fit a terminal of 80 columns
    "rmse_stops_clipped": "RMSE",
    "bias_stops_clipped": "bias",
    "chroma_error_clipped": "Δu′v′",
    "pu21_psnr_clipped": "PSNR",
    "mse_gamma": "MSE γ",
    "pu21_vsi": "VSI",
    "cvvdp_jod": "JOD",
    "hdrvdp3_q": "VDP3",
    "hdrvdp2_q": "VDP2",
    "light_rmse_stops": "light",
}


SI_HDR_SHOWN = {  # in the order of the tables that are published for it; its headings
    "pu21_psnr": "PSNR↑",
    "pu21_psnr_crf": "+CRF",
    "pu21_vsi": "VSI↑",
    "pu21_vsi_crf": "+CRF",
    "hdrvdp3_jod": "JOD↑",
    "hdrvdp3_jod_crf": "+CRF",
    "pu21_piqe": "PIQE↓",
    "pu21_ssim": "SSIM*",
}
SI_HDR_CAPTION = (
    "PU21-PSNR in dB, PU21-VSI, HDR-VDP-3 in JOD, PU21-PIQE, of whole pictures after one gain each; +CRF: after the "
    "benchmark's fit of tone and colour too. *PU21-SSIM is not recommended."
)


def tables(scores: Sequence[MethodScore]) -> tuple[Table, Table]:
    """What a terminal is shown of one kind of exposure."""
    return si_hdr_tables(scores) if is_si_hdr(scores) else (table(scores), bin_table(scores))


def is_si_hdr(scores: Sequence[MethodScore]) -> bool:
    """Whether these were scored by the SI-HDR benchmark's protocol."""
    return any(isfinite(score.metrics["pu21_piqe"].mean) for score in scores)


def by_psnr(scores: Sequence[MethodScore]) -> list[MethodScore]:
    """Best PU21-PSNR first, as the benchmark's tables are."""
    return sorted(scores, key=lambda score: -score.metrics["pu21_psnr"].mean)


def si_hdr_tables(scores: Sequence[MethodScore]) -> tuple[Table, Table]:
    """The benchmark's metrics, best PU21-PSNR first, and below them what each method gains over the LDR picture."""
    means = _plain_table(f"{KINDS[scores[0].exposure]} ({_amount(scores[0])})")
    gains = _plain_table(f"Gain over the {UNPROCESSED}")
    means.caption, means.caption_justify = SI_HDR_CAPTION, "left"
    gained = [key for key in SI_HDR_SHOWN if key != "pu21_ssim"]
    for key, heading in SI_HDR_SHOWN.items():
        means.add_column(heading, justify="right", no_wrap=True)
        if key in gained:
            gains.add_column(heading, justify="right", no_wrap=True)
    gains.add_column("PSNR, 95 %", justify="right", no_wrap=True)
    for score in by_psnr(scores):
        means.add_row(literal(score.method), *(show(score.metrics[key], key, False) for key in SI_HDR_SHOWN))
        if score.method != UNPROCESSED:
            cells = (show(score.metrics[key + GAIN], key + GAIN, False) for key in gained)
            _, low, high = score.metrics["pu21_psnr" + GAIN]
            gains.add_row(literal(score.method), *cells, f"{low:.2f} to {high:.2f}" if isfinite(low) else "–")
    return means, gains


def _plain_table(title: str) -> Table:
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    result.add_column("method", overflow="fold")
    return result


def table(scores: Sequence[MethodScore]) -> Table:
    """The means of one kind of exposure, best first, for a terminal; of the intervals, that of `HEADLINE`."""
    kind = scores[0].exposure
    shown = [key for key in SHOWN if any(isfinite(score.metrics[key].mean) for score in scores)]
    result = _plain_table(f"{KINDS[kind]} ({_amount(scores[0])})")
    result.caption = "Of clipped areas: RMSE and bias (stops), Δu′v′, PU21-PSNR (dB). The others are of whole pictures."
    result.caption_justify = "left"
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
    result = _plain_table("Bias / RMSE in stops, by stops of the truth above the clip level")
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
    sign = "+" if METRICS[key].better == 0 or key.endswith(GAIN) else ""
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


def _amount(score: MethodScore) -> str:
    pictures = "1 picture" if score.cases == 1 else f"{score.cases} pictures"
    return f"{pictures} of {score.scenes} scene{'' if score.scenes == 1 else 's'}"


def literal(text: str) -> str:
    """Escaped for rich, which would take [brackets] for markup."""
    return escape(text)


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
    """As JSON can hold it: NaN and ∞ become None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value
