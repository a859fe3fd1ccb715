"""A difference is claimed only where a test over scenes supports it."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from ldr2hdr_cli.evaluation import clip_report
from ldr2hdr_cli.evaluation.claims import difference
from ldr2hdr_cli.evaluation.flicker import ALONE

KEY = "rmse_stops_clipped"


def rows_of(**errors: Any) -> list[dict[str, Any]]:
    return [
        {"method": method, "scene": f"scene{index:02}", KEY: value}
        for method, values in errors.items()
        for index, value in enumerate(values)
    ]


def test_ten_scenes_that_agree_are_a_claim_and_nine_are_not() -> None:
    hard = np.linspace(1, 5, 10)
    gaps = np.linspace(0.1, 0.3, 10)  # all of one sign: 2 of the 2^10 ways to sign ten ranks are as extreme
    found = difference(rows_of(a=hard, b=hard + gaps), KEY, "a", "b")
    assert (found.scenes, found.sign) == (10, 1)
    assert found.p == pytest.approx(2 / 2**10)
    assert found.size.mean == pytest.approx(gaps.mean())
    assert gaps.min() < found.size.low < gaps.mean() < found.size.high < gaps.max()
    assert found.evidence.startswith("0.20 stops on average over 10 scenes (95 % interval 0.1")
    assert found.evidence.endswith(", Wilcoxon p = 0.002)")
    assert difference(rows_of(a=hard, b=hard + gaps), KEY, "b", "a").sign == -1
    fewer = difference(rows_of(a=hard[:9], b=hard[:9] + gaps[:9]), KEY, "a", "b")
    assert (fewer.scenes, fewer.sign, fewer.is_enough) == (9, 0, False)
    assert "over 9 scenes (95 % interval 0.1" in fewer.evidence and "Wilcoxon" not in fewer.evidence


def test_p_is_the_share_of_all_signs_that_are_as_extreme() -> None:
    gaps = np.array([0.5, -0.25, 1.0, 1.0, 2.0, -1.0, 3.0, 0.25, 0.0])  # with ties, and a scene without a difference
    ranks = np.array([3, 1.5, 5, 5, 7, 5, 8, 1.5])  # of |gap| without the 0
    sums = [(ranks * signs).sum() for signs in product((-1, 1), repeat=8)]
    observed = (ranks * np.sign(gaps[:8])).sum()
    found = difference(rows_of(a=np.zeros(9), b=gaps), KEY, "a", "b")
    assert found.p == pytest.approx(np.mean(np.abs(sums) >= observed - 1e-9))


def test_one_scene_that_outweighs_the_others_is_no_claim() -> None:
    """Eleven scenes speak for `a`, one so loudly for `b` that their means say nothing: the tests disagree."""
    found = difference(rows_of(a=[1.0] * 11 + [6.0], b=[1.3] * 11 + [2.0]), KEY, "a", "b")
    assert found.p < 0.05 and found.size.low < 0 < found.size.high
    assert found.sign == 0


def test_scenes_count_once_and_those_without_a_score_do_not() -> None:
    rows = rows_of(a=[1.0] * 12, b=[2.0] * 11 + [np.nan])
    rows += [{"method": "b", "scene": "scene00", KEY: 4.0}]  # another picture of a scene: its mean is 3
    found = difference(rows, KEY, "a", "b")
    assert found.scenes == 11
    assert found.size.mean == pytest.approx((2 + 10) / 11)
    assert difference(rows_of(a=[1.0] * 12, b=[np.inf] + [2.0] * 11), KEY, "a", "b").scenes == 11


def test_equal_methods_differ_by_nothing() -> None:
    found = difference(rows_of(a=np.arange(12.0), b=np.arange(12.0)), KEY, "a", "b")
    assert found.size == (0, 0, 0) and found.p == 1 and found.sign == 0


def test_chance_is_claimed_in_less_than_one_of_twenty_runs() -> None:
    rng = np.random.default_rng(3)
    claims = 0
    for _ in range(300):
        hard = rng.uniform(1, 5, 12)
        claims += difference(rows_of(a=hard, b=hard + rng.normal(0, 0.3, 12)), KEY, "a", "b").sign != 0
    assert claims <= 15


def test_clips_are_steadier_only_where_ten_scenes_say_so() -> None:
    def said(scenes: int, filtered: float) -> str:
        rng = np.random.default_rng(0)
        rows = []
        for index in range(scenes):
            for method, flicker in (("net", filtered), ("net" + ALONE, 0.4)):
                value = flicker * rng.uniform(0.8, 1.2)
                row = {"case": str(index), "scene": str(index), "method": method}
                rows.append(row | dict.fromkeys(clip_report.COLUMNS, 1.0) | {"flicker": value})
        (sentence,) = clip_report.sentences(rows, clip_report.summarise_clips(rows))
        return sentence

    assert "Whether it is steadier cannot be told from 3 scenes: a claim needs 10." in said(3, 0.1)
    assert "It is steadier (Wilcoxon p < 0.001, 12 scenes)." in said(12, 0.1)
    assert "It is less steady (" in said(12, 0.9)
    assert "It is not shown to be steadier (" in said(12, 0.4)
    assert "its error there is +0.0 % (95 % interval +0.0 to +0.0)" in said(12, 0.1)
