"""Our HDR-VDP beside the published code: Q and Q_JOD that `benchmarks/hdrvdp_octave.py` got from Octave."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.hdrvdp import angular_resolution, hdrvdp3

PAIRS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "hdrvdp_octave.py"))["pairs"]()

# hdrvdp-3.0.7, task "quality", in Octave 7.3.0 with image 2.14.0
PUBLISHED = {
    "identical": (10.0, 10.0),
    "ramp, 5 % noise": (9.49126556, 9.781244092),
    "ramp, 60 % noise": (4.933329113, 5.841908323),
    "rings, blurred": (8.631500869, 9.222751611),
    "rings, brighter by 10 %": (9.999911264, 9.999996653),
    "rings, one spot differs": (9.754328167, 9.913915167),
    "rings, 20 levels": (9.125527252, 9.56210632),
    "night, noise": (8.801042624, 9.343905042),
    "lamp, clipped at 100": (8.732522995, 9.295485095),
    "odd size, few pixels a degree": (7.342416164, 8.180902177),
    "upright, small": (9.588047158, 9.833065552),
    "dandelion, blurred": (7.920488601, 8.671457757),
    "dandelion, half as bright": (9.270129269, 9.652628605),
    "mountain, noise": (8.927336762, 9.43110378),
    "mountain, greyer": (9.056267111, 9.51718584),
    "mountain, out of gamut": (8.717855047, 9.285022474),
    "sunset, clipped": (6.770713702, 7.665087257),
    "sunset, highlights too dim": (9.703524428, 9.890474425),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_quality_is_that_of_the_published_code(name):
    pair = PAIRS[name]
    ours = hdrvdp3(pair.test, pair.reference, pair.pixels_per_degree)
    assert ours == pytest.approx(PUBLISHED[name], rel=1e-4)


def test_every_pair_that_octave_was_asked_about_is_held():
    assert PAIRS.keys() == PUBLISHED.keys()


def test_angular_resolution_is_the_pixels_of_one_degree():
    """24 inches of 16:9 are 298.9 mm high, which is 17° at a metre."""
    assert angular_resolution() == pytest.approx(1080 / 16.998, rel=1e-3)
    assert angular_resolution(24.0, (1920, 1080), 2.0) == pytest.approx(2 * angular_resolution(), rel=0.02)
    assert angular_resolution(24.0, (3840, 2160)) == pytest.approx(2 * angular_resolution())


def test_nearer_is_more_visible():
    pair = PAIRS["mountain, noise"]
    near = hdrvdp3(pair.test, pair.reference, angular_resolution(distance=0.3))
    assert near.q < hdrvdp3(pair.test, pair.reference).q


def test_a_nan_is_seen():
    reference = np.full((20, 20), 50.0)
    broken = reference.copy()
    broken[3, 4] = np.nan
    assert math.isnan(hdrvdp3(broken, reference).q) and math.isnan(hdrvdp3(broken, reference).q_jod)


@pytest.mark.parametrize("shape", [(20,), (20, 20, 2), (20, 20, 4), (15, 200), (200, 15, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="of at least 16 a side"):
        hdrvdp3(np.ones(shape), np.ones(shape))


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        hdrvdp3(np.ones((20, 20)), np.ones((20, 21)))
