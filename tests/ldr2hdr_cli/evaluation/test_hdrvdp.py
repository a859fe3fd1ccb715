"""Our HDR-VDP beside the published code: what `benchmarks/hdrvdp_octave.py` got from Octave."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.hdrvdp import angular_resolution, hdrvdp2, hdrvdp3

PAIRS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "hdrvdp_octave.py"))["pairs"]()

# By Octave 7.3.0 with its image package 2.14.0: Q and Q_JOD of hdrvdp-3.0.7, task "quality"
VERSION_3 = {
    "identical": (10.000000, 10.000000),
    "ramp, 5 % noise": (9.491266, 9.781244),
    "ramp, 60 % noise": (4.933329, 5.841908),
    "rings, blurred": (8.631501, 9.222752),
    "rings, brighter by 10 %": (9.999911, 9.999997),
    "rings, one spot differs": (9.754328, 9.913915),
    "rings, 20 levels": (9.125527, 9.562106),
    "night, noise": (8.801043, 9.343905),
    "lamp, clipped at 100": (8.732523, 9.295485),
    "odd size, few pixels a degree": (7.342416, 8.180902),
    "upright, small": (9.588047, 9.833066),
    "dandelion, blurred": (7.920489, 8.671458),
    "dandelion, half as bright": (9.270129, 9.652629),
    "mountain, noise": (8.927337, 9.431104),
    "mountain, greyer": (9.056267, 9.517186),
    "mountain, out of gamut": (8.717855, 9.285022),
    "sunset, clipped": (6.770714, 7.665087),
    "sunset, highlights too dim": (9.703524, 9.890474),
}
# and Q of hdrvdp-2.2.0, on the scale of 2.2.1 and 2.2.2
VERSION_2 = {
    "identical": 100.000000,
    "ramp, 5 % noise": 60.165395,
    "ramp, 60 % noise": 29.313627,
    "rings, blurred": 38.884209,
    "rings, brighter by 10 %": 96.242129,
    "rings, one spot differs": 47.167049,
    "rings, 20 levels": 72.595355,
    "night, noise": 56.819388,
    "lamp, clipped at 100": 35.343080,
    "odd size, few pixels a degree": 69.802044,
    "upright, small": 58.146928,
    "dandelion, blurred": 40.644000,
    "dandelion, half as bright": 48.248823,
    "mountain, noise": 54.848440,
    "mountain, greyer": 64.875328,
    "mountain, out of gamut": 68.106091,
    "sunset, clipped": 26.897855,
    "sunset, highlights too dim": 54.175137,
}


@pytest.mark.parametrize("name", VERSION_3)
def test_version_3_is_the_published_code_s(name):
    pair = PAIRS[name]
    ours = hdrvdp3(pair.test, pair.reference, pair.pixels_per_degree)
    assert ours == pytest.approx(VERSION_3[name], rel=1e-4)


@pytest.mark.parametrize("name", VERSION_2)
def test_version_2_is_the_published_code_s(name):
    pair = PAIRS[name]
    assert hdrvdp2(pair.test, pair.reference, pair.pixels_per_degree) == pytest.approx(VERSION_2[name], rel=1e-4)


def test_every_pair_that_octave_was_asked_about_is_held():
    assert PAIRS.keys() == VERSION_3.keys() == VERSION_2.keys()


def test_angular_resolution_is_the_pixels_of_one_degree():
    """24 inches of 16:9 are 298.9 mm high, which is 17° at a metre."""
    assert angular_resolution() == pytest.approx(1080 / 16.998, rel=1e-3)
    assert angular_resolution(24.0, (1920, 1080), 2.0) == pytest.approx(2 * angular_resolution(), rel=0.02)
    assert angular_resolution(24.0, (3840, 2160)) == pytest.approx(2 * angular_resolution())


def test_nearer_is_more_visible():
    pair = PAIRS["mountain, noise"]
    near = hdrvdp3(pair.test, pair.reference, angular_resolution(distance=0.3))
    assert near.q < hdrvdp3(pair.test, pair.reference).q


def test_any_view_of_an_array_will_do():
    pair = PAIRS["upright, small"]
    turned = [np.stack([p] * 3, axis=-1).astype(np.float32)[::-1, ::-1, ::-1] for p in (pair.test, pair.reference)]
    copies = [p.copy() for p in turned]
    assert hdrvdp3(*turned) == hdrvdp3(*copies) and hdrvdp2(*turned) == hdrvdp2(*copies)


def test_a_nan_is_seen():
    reference = np.full((20, 20), 50.0)
    broken = reference.copy()
    broken[3, 4] = np.nan
    assert all(math.isnan(value) for value in (*hdrvdp3(broken, reference), hdrvdp2(broken, reference)))


@pytest.mark.parametrize("metric", [hdrvdp2, hdrvdp3])
@pytest.mark.parametrize("shape", [(20,), (20, 20, 2), (20, 20, 4), (15, 200), (200, 15, 3)])
def test_what_is_no_picture_is_refused(shape, metric):
    with pytest.raises(ValueError, match="of at least 16 a side"):
        metric(np.ones(shape), np.ones(shape))


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        hdrvdp3(np.ones((20, 20)), np.ones((20, 21)))
