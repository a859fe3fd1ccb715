"""Our PIQE beside the package pypiqe, which was tested against MATLAB's."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation import metrics
from ldr2hdr_cli.evaluation.piqe import piqe

PAIRS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "hdrvdp_octave.py"))["pairs"]()
PUBLISHED = {  # pypiqe 1.2, given the same rounded grey values, of which the first is 255
    "dandelion, blurred": 81.529066047,
    "dandelion, half as bright": 51.958228136,
    "mountain, noise": 20.223880548,
    "mountain, greyer": 29.591246738,
    "mountain, out of gamut": 26.240651337,
    "sunset, clipped": 47.690219992,
    "sunset, highlights too dim": 42.903822543,
}


def encoded(name: str) -> np.ndarray:
    light = PAIRS[name].test
    codes: np.ndarray = (light / light.max()) ** (1 / 2.2)
    codes[0, 0] = 1.0
    return codes


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_another_program_s(name):
    assert piqe(encoded(name)) == pytest.approx(PUBLISHED[name], abs=1e-6)


def test_a_picture_of_any_size_is_continued_at_its_edge():
    picture = encoded("mountain, noise")[:121, :150]
    assert piqe(picture) == piqe(np.pad(picture, ((0, 7), (0, 10), (0, 0)), mode="edge"))
    assert math.isfinite(piqe(picture[:3, :5]))


def test_a_picture_in_which_nothing_happens_is_the_worst():
    assert piqe(np.full((32, 48, 3), 0.4)) == 100.0


def test_pu21_piqe_is_of_the_picture_on_the_display():
    light = PAIRS["dandelion, blurred"].test
    codes = metrics.pu21_encode(np.clip(light, 0.005, 1000)) / metrics.pu21_encode(np.array(1000.0))
    assert metrics.pu21_piqe(light / 50, peak=1000.0, white=50.0) == piqe(codes)
    assert metrics.pu21_piqe(light / 50, peak=10.0, white=50.0) != piqe(codes)
    broken = light.copy()
    broken[3, 4] = np.nan
    assert math.isnan(metrics.pu21_piqe(broken))
