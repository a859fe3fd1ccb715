"""What is reported follows from the rows, by hand-made arithmetic."""

import csv
import io
import json
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ldr2hdr_cli.evaluation import report
from ldr2hdr_cli.evaluation.metrics import BINS
from ldr2hdr_cli.evaluation.plots import figure
from ldr2hdr_cli.evaluation.summary import HEADLINE, METRICS, summarise
from ldr2hdr_cli.evaluation.verdict import verdict

METRIC = HEADLINE


def row(
    method: str,
    scene: str,
    error: float,
    exposure: str = "share",
    level: float = 4.0,
    bins: dict[int, tuple[int, float, float]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """bins: count, bias and RMSE by the index of the bin."""
    entries = [
        dict(
            zip(
                ("from", "to", "count", "bias", "rmse"),
                (low, None if high == inf else high, *(bins or {}).get(index, (0, nan, nan))),
                strict=True,
            )
        )
        for index, (low, high) in enumerate(BINS)
    ]
    name = f"{scene}_{exposure}{level:g}"
    plain = {"case": name, "scene": scene, "exposure": exposure, "level": level, "method": method}
    return plain | dict.fromkeys(METRICS, nan) | {METRIC: error, "by_stops_above": entries} | more


def rows_of(errors: dict[str, list[float]], exposure: str = "share", **more: Any) -> list[dict[str, Any]]:
    return [
        row(method, f"scene{index}", value, exposure, **more)
        for method, values in errors.items()
        for index, value in enumerate(values)
    ]


def text_of(*things: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(*things)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_scene_counts_once() -> None:
    rows = [row("a", "one", 1.0, level=level) for level in (4.0, 8.0, 12.0)] + [row("a", "two", 3.0)]
    (score,) = summarise(rows)["share"]
    assert score.metrics[METRIC].mean == pytest.approx(2.0)
    assert (score.cases, score.scenes) == (4, 2)
    assert score.by_level[8.0][METRIC].mean == pytest.approx(1.0)
    assert score.by_level[4.0][METRIC].mean == pytest.approx(2.0)


def test_the_interval_is_that_of_resampled_scenes() -> None:
    values = np.random.default_rng(0).normal(2.0, 0.5, 40)
    (score,) = summarise(rows_of({"a": list(values)}))["share"]
    mean, low, high = score.metrics[METRIC]
    assert mean == pytest.approx(values.mean())
    # Of 40 near-normal values: mean ± 1.96 standard errors.
    half = 1.96 * values.std() / np.sqrt(40)
    assert (low, high) == (pytest.approx(mean - half, abs=0.15 * half), pytest.approx(mean + half, abs=0.15 * half))
    again = summarise(rows_of({"a": list(values)}))["share"][0]
    assert again.metrics[METRIC] == score.metrics[METRIC]


def test_one_scene_has_no_interval_and_a_missing_metric_no_mean() -> None:
    (score,) = summarise([row("a", "one", 1.5)])["share"]
    assert score.metrics[METRIC].mean == 1.5
    assert np.isnan(score.metrics[METRIC].low)
    assert np.isnan(score.metrics["cvvdp_jod"].mean)
    assert report.show(score.metrics[METRIC], METRIC) == "1.50"
    assert report.show(score.metrics["cvvdp_jod"], "cvvdp_jod") == "–"


def test_bins_are_pooled_over_values() -> None:
    rows = [
        row("a", "one", 1.0, bins={0: (300, 0.2, 1.0), 4: (10, -3.0, 3.0)}),
        row("a", "two", 1.0, bins={0: (100, -0.2, 3.0)}),
    ]
    (score,) = summarise(rows)["share"]
    first, last = score.bins[0], score.bins[4]
    assert first.count == 400
    assert first.bias.mean == pytest.approx(0.1)  # (300·0.2 − 100·0.2)/400
    assert first.rmse.mean == pytest.approx(np.sqrt(3.0))  # (300·1 + 100·9)/400
    assert (last.count, last.rmse.mean) == (10, pytest.approx(3.0))
    assert score.bins[1].count == 0


def test_best_first_and_nothing_to_compare_last() -> None:
    summary = summarise(rows_of({"worse": [2, 2], "none": [nan, nan], "better": [1, 1]}))
    assert [score.method for score in summary["share"]] == ["better", "worse", "none"]


def test_verdict_claims_what_ten_scenes_show() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(1, 5, 12)  # scenes differ far more than methods do
    rows = rows_of({"a": list(hard), "b": list(hard + 0.2), "clip": list(hard + 1)})
    text = " ".join(verdict(rows, summarise(rows)))
    assert "a has the lowest error" in text and "next is b" in text
    numbers = "0.20 stops on average over 12 scenes (95 % interval 0.20 to 0.20, Wilcoxon p < 0.001)."
    assert f"a is better by {numbers}" in text
    rows = rows_of({"a": list(hard), "b": list(hard + rng.normal(0.01, 1.0, 12))})
    text = " ".join(verdict(rows, summarise(rows)))
    assert "Neither is shown to be better: they differ by" in text and "over 12 scenes (" in text
    rows = rows_of({"a": list(hard[:9]), "b": list(hard[:9] + 0.2)})
    text = " ".join(verdict(rows, summarise(rows)))
    assert "That does not tell which is better: a claim needs 10 scenes. They differ by 0.20 stops" in text
    assert "over 9 scenes (95 %" in text and "is better by" not in text


def test_verdict_does_not_call_equals_better_by_chance() -> None:
    rows = rows_of({"a": [1, 2], "b": [1, 2]})
    assert "They are equal in every scene." in verdict(rows, summarise(rows))[0]


def test_verdict_says_why_by_the_bins() -> None:
    mine = {0: (10, 0.4, 0.6), 3: (10, -0.5, 1.0)}
    plain = {0: (10, -0.2, 0.25), 3: (10, -3.0, 3.0)}
    rows = [
        row(method, scene, error, bins=bins)
        for scene in ("one", "two")
        for method, error, bins in (("net", 1.0, mine), ("clip", 2.0, plain))
    ]
    text = " ".join(verdict(rows, summarise(rows)))
    assert (
        "net gains most where the truth lies 2–4 stops above the clip level "
        "(off by 1.00 stops, 0.50 too dark; clip is off by 3.00 stops, 3.00 too dark)"
    ) in text
    assert "loses 0–0.5 stops above it (off by 0.60 stops, 0.40 too bright" in text


@pytest.mark.parametrize(
    ("mild", "scenes", "words"),
    [
        (
            1.5,
            10,
            "Beware: net harms mild over-exposure, where it takes bright surfaces for light sources: it is off by "
            "1.50 stops there (1.20 too bright), clip by 0.30. They differ by 1.20 stops on average over 10 scenes",
        ),
        (0.1, 10, "net is better than clip in mild over-exposure too"),
        (0.3, 10, "net is not shown to harm mild over-exposure"),
        (1.5, 9, "These scenes are too few to tell whether net harms mild over-exposure"),
    ],
)
def test_verdict_warns_of_lifted_rocks(mild: float, scenes: int, words: str) -> None:
    rows = rows_of({"net": [1] * scenes, "clip": [2] * scenes})
    rows += rows_of({"net": [mild] * scenes, "clip": [0.3] * scenes}, "mild", bias_stops_clipped=1.2)
    assert any(sentence.startswith(words) for sentence in verdict(rows, summarise(rows)))


def test_nothing_clipped_is_said() -> None:
    rows = rows_of({"a": [nan], "b": [nan]}, "given")
    assert "nothing is clipped" in verdict(rows, summarise(rows))[0]


def test_tables_take_names_literally() -> None:
    rows = rows_of({"[red]net[/red]": [1.25, 1.75], "clip": [2, 2]}, bins={2: (5, -1.5, 1.6)})
    scores = summarise(rows)["share"]
    text = text_of(report.table(scores), report.bin_table(scores))
    assert "[red]net[/red]" in text
    assert " 1.50 " in text and "1.25–1.75" in text
    assert "-1.50/1.60" in text
    assert "JOD" not in text and "ColorVideoVDP" not in text  # not computed


def test_the_psnr_of_the_table_is_that_of_clipped_areas() -> None:
    rows = rows_of({"net": [1.0, 1.0]}, pu21_psnr=33.25, pu21_psnr_clipped=22.75)
    text = text_of(report.table(summarise(rows)["share"]))
    assert " 22.75 " in text and "33.25" not in text
    assert "Of clipped areas: RMSE and bias (stops), Δu′v′, PU21-PSNR (dB)." in " ".join(text.split())


def test_csv_and_json_hold_every_number(tmp_path: Path) -> None:
    rows = rows_of({"a, b": [1.25], "clip": [nan]}, bins={0: (7, 0.1, 0.2)}, pu21_psnr=inf)
    summary = summarise(rows)
    report.write_csv(tmp_path / "r.csv", rows)
    report.write_json(tmp_path / "r.json", rows, summary, {"seed": 0}, ["Sentence."])
    first, second = csv.DictReader((tmp_path / "r.csv").open())
    assert first["method"] == "a, b" and float(first[METRIC]) == 1.25 and second[METRIC] == ""
    assert (first["count_0_0.5"], first["rmse_0_0.5"], first["count_4_inf"]) == ("7", "0.2", "0")
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity
    assert document["rows"][0][METRIC] == 1.25 and document["rows"][1][METRIC] is None
    assert document["rows"][0]["pu21_psnr"] is None
    best = document["summary"]["share"][0]
    assert best["metrics"][METRIC]["mean"] == 1.25
    assert best["by_share"]["4"][METRIC]["mean"] == 1.25
    assert document["verdict"] == ["Sentence."]


def test_text_that_begins_as_a_formula_is_quoted_and_numbers_stay_numbers(tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x","y")', "+1", "-1", "@a", "plain", "a=b"]
    report.write_csv(tmp_path / "a.csv", [row("m", name, -1.5, level=-0.25) for name in names])
    with (tmp_path / "a.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert [cell["scene"] for cell in cells] == [f"'{name}" for name in names[:4]] + names[4:]
    assert {(cell[METRIC], cell["level"]) for cell in cells} == {("-1.5", "-0.25")}


def test_figure_is_the_same_every_time_and_takes_any_name() -> None:
    rows = rows_of({"$x^{": [1, 2], "_hidden": [2, 3]}, bins={0: (5, 0.1, 0.2)})
    rows += rows_of({"$x^{": [2, 2], "_hidden": [3, 3]}, level=8.0)
    summary = summarise(rows)
    first, again = (figure(summary, "svg") for _ in range(2))
    assert first == again and b"<svg" in first
    assert figure(summary, "png").startswith(b"\x89PNG")
    given = summarise(rows_of({"a": [nan]}, "given"))
    assert b"<svg" in figure(given, "svg", dark=True)
