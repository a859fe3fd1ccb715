"""When a difference between two methods may be called one: a test over scenes, each method against itself elsewhere.

Scenes differ far more than methods do, so that only differences within scenes tell; and views and exposures of one
scene are not independent, so that scenes are counted and not pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ldr2hdr_cli.evaluation.summary import Estimate, estimate, per_scene, resampled

LEAST_SCENES = 10  # Wilcoxon's test cannot reach 5 % with five pairs, and a bootstrap of a few is too narrow
CHANCE = 0.05


class Difference(NamedTuple):
    """Of two methods, second − first. p: of Wilcoxon's signed-rank test, two-sided; 1 where no scene differs."""

    scenes: int
    size: Estimate
    p: float

    @property
    def is_enough(self) -> bool:
        return self.scenes >= LEAST_SCENES

    @property
    def sign(self) -> int:
        """1 or −1 where both tests agree that there is a difference; 0: it may be chance, or the scenes are too few."""
        if not self.is_enough or self.p >= CHANCE:
            return 0
        return int(self.size.low > 0) - int(self.size.high < 0)

    @property
    def evidence(self) -> str:
        """The numbers behind a claim, as the end of a sentence."""
        found = [f"95 % interval {self.size.low:.2f} to {self.size.high:.2f}"] if isfinite(self.size.low) else []
        found += [self.test] if self.is_enough else []
        return f"{self.size.mean:.2f} stops on average over {self.over}" + (f" ({', '.join(found)})" if found else "")

    @property
    def test(self) -> str:
        return "Wilcoxon p " + ("< 0.001" if self.p < 0.001 else f"= {self.p:.3f}")

    @property
    def over(self) -> str:
        return f"{self.scenes} scene{'' if self.scenes == 1 else 's'}"


def difference(rows: Sequence[dict[str, Any]], key: str, first: str, second: str, seed: int = 0) -> Difference:
    """A metric of `second` minus that of `first`, scene by scene, where both have a finite one.

    The interval is that of a paired bootstrap over scenes: percentiles, as of every interval here.
    """
    chosen = [row for row in rows if row["method"] in (first, second)]
    weights, scenes = resampled(chosen, seed)
    one, other = (per_scene([row for row in chosen if row["method"] == m], scenes, key) for m in (first, second))
    both = np.isfinite(one) & np.isfinite(other)
    gaps = np.subtract(other, one, where=both, out=np.full(len(scenes), np.nan))
    return Difference(int(both.sum()), estimate(gaps, weights), _wilcoxon(gaps[both]))


def _wilcoxon(gaps: np.ndarray) -> float:
    """Wilcoxon 1945, "Individual comparisons by ranking methods": exact, of all ways to sign the ranks, also with ties.

    Scenes without a difference are left out.
    """
    gaps = gaps[gaps != 0]
    _, place, equal = np.unique(np.abs(gaps), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(equal) - equal + 1)[place]  # doubled, so that those of ties are whole numbers
    whole, positive = int(ranks.sum()), int(ranks[gaps > 0].sum())
    chances = np.zeros(whole + 1)  # of each sum of positive ranks
    chances[0] = 1
    for rank in ranks:
        chances[rank:] = (chances[rank:] + chances[:-rank]) / 2
        chances[:rank] /= 2
    return float(chances[np.abs(2 * np.arange(whole + 1) - whole) >= abs(2 * positive - whole)].sum())
