"""Our fit of tone and colour beside what the SI-HDR benchmark's own code gave in Octave."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.crf import crf_corrected

PAIRS = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "hdrvdp_octave.py"))["pairs"]()
WHERE = ((5, 7), (40, 30), (60, 90))  # rows and columns
PUBLISHED = {  # crf_correction.m of gfxdisp/pu21, by Octave 7.3.0: benchmarks/crf_octave.py prints it
    "dandelion, blurred": [
        [42.99265625, 41.09848207, 29.53658773],
        [6.14585117, 5.34061601, 0.17506994],
        [41.67678489, 24.32756481, 8.93709992],
    ],
    "dandelion, half as bright": [
        [45.44520917, 42.963104, 31.2267002],
        [7.99580078, 6.34679801, 0.18725626],
        [36.98894725, 20.6664319, 7.11704913],
    ],
    "mountain, noise": [
        [7.76651892, 20.36683173, 44.1860419],
        [75.1225006, 96.11667303, 107.66233587],
        [22.26568872, 17.87338402, 17.77998163],
    ],
    "mountain, greyer": [
        [10.24073787, 19.59554593, 42.40502849],
        [87.69837807, 89.01065198, 102.20017577],
        [19.26276141, 17.68740468, 18.00256014],
    ],
    "mountain, out of gamut": [
        [6.55151197, 16.16851912, 39.20122906],
        [84.40657701, 88.54949232, 93.00565558],
        [21.95093602, 19.53531769, 18.11699688],
    ],
    "sunset, clipped": [
        [6.65305451, 10.12336356, 23.02219733],
        [41.21693935, 51.60671733, 81.63983882],
        [1958.96801601, 1871.22104916, 2194.94609432],
    ],
    "sunset, highlights too dim": [
        [10.79180854, 16.38237666, 29.93419606],
        [35.90343931, 46.47145019, 61.86580214],
        [3354.25606475, 3270.68325253, 2453.87291423],
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_published_code_s(name):
    corrected = crf_corrected(PAIRS[name].test, PAIRS[name].reference)
    assert [corrected[place].tolist() for place in WHERE] == pytest.approx(np.array(PUBLISHED[name]), rel=1e-6)


def test_a_camera_s_curve_and_cast_are_taken_out():
    truth = PAIRS["dandelion, blurred"].reference
    seen = (truth / 100) ** 0.7 * 60 * np.array([1.2, 1.0, 0.8])
    pictures = (np.maximum(picture, 0.05) for picture in (seen, crf_corrected(seen, truth)))
    before, after = (np.abs(np.log2(picture / truth)).mean() for picture in pictures)
    assert before > 0.7
    assert after < 0.1


def test_equal_pictures_stay_equal():
    truth = PAIRS["sunset, clipped"].reference
    np.testing.assert_allclose(crf_corrected(truth, truth), truth, rtol=2e-3, atol=2e-3)


def test_one_colour_and_a_nan_are_no_failure():
    grey = np.full((8, 9, 3), 20.0)
    np.testing.assert_allclose(crf_corrected(grey, 2 * grey), 2 * grey, rtol=1e-6)
    broken = grey.copy()
    broken[3, 4, 1] = np.nan
    assert np.isnan(crf_corrected(broken, grey)).all()
    assert np.isnan(crf_corrected(grey, broken)).all()
