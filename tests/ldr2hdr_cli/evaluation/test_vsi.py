"""Our VSI beside what the authors' own code gave in Octave for the same PU21-encoded pairs."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation import metrics
from ldr2hdr_cli.evaluation.vsi import vsi

PAIRS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "hdrvdp_octave.py"))["pairs"]()
PUBLISHED = {  # m_vsi.m of gfxdisp/pu21, by Octave 7.3.0
    "identical": 1.0,
    "ramp, 60 % noise": 0.911895814,
    "rings, one spot differs": 0.995337626,
    "lamp, clipped at 100": 0.800809012,
    "odd size, few pixels a degree": 0.992702227,
    "dandelion, blurred": 0.973086946,
    "mountain, greyer": 0.987251372,
    "sunset, clipped": 0.917522938,
}


def encoded(picture: np.ndarray) -> np.ndarray:
    return metrics.pu21_encode(picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2))


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_published_code_s(name):
    pair = PAIRS[name]
    assert vsi(encoded(pair.test), encoded(pair.reference)) == pytest.approx(PUBLISHED[name], abs=1e-6)


def test_colours_that_turn_into_their_opposites():
    reference = encoded(PAIRS["dandelion, blurred"].reference)
    assert vsi(encoded(PAIRS["dandelion, blurred"].test)[..., ::-1], reference) == pytest.approx(0.954560705, abs=1e-6)


@pytest.mark.parametrize(("height", "width", "published"), [(512, 768, 0.996471596), (501, 701, 0.996487468)])
def test_large_pictures_are_compared_at_a_smaller_size(height, width, published):
    pair = PAIRS["mountain, noise"]
    reference = np.kron(pair.reference, np.ones((4, 4, 1)))
    y, x = np.mgrid[:512, :768].astype(np.float64)
    wave = np.sin(12.9898 * x + 78.233 * y) * 43758.5453
    test = reference * (1 + 0.3 * ((wave - np.floor(wave))[..., None] - 0.5))
    cut = np.s_[:height, :width]
    assert vsi(encoded(test[cut]), encoded(reference[cut])) == pytest.approx(published, abs=1e-6)


def test_pu21_vsi_of_one_colour_and_of_a_nan():
    truth = np.full((20, 30, 3), 0.5, np.float32)
    assert metrics.pu21_vsi(truth, truth) == 1.0
    assert metrics.pu21_vsi(0.8 * truth, truth) < 1.0
    broken = truth.copy()
    broken[3, 4] = np.nan
    assert math.isnan(metrics.pu21_vsi(broken, truth))


def test_pu21_vsi_is_of_the_picture_on_the_display():
    pair = PAIRS["sunset, clipped"]
    test, reference = pair.test / 100, pair.reference / 100  # LDR white is 100 cd/m²
    assert metrics.pu21_vsi(test, reference) == pytest.approx(PUBLISHED["sunset, clipped"], abs=1e-6)
    assert metrics.pu21_vsi(test, reference, peak=100.0) == pytest.approx(1.0)
