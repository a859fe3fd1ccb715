"""Scene-linear to display light, and its encodings, against the numbers that the standards print."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldr2hdr_cli.media.colour import P3D65, REC709, REC2020
from ldr2hdr_cli.media.display_light import (
    LUMA_2020,
    DisplayLight,
    hlg,
    hlg_inverse,
    hlg_system_gamma,
    pq,
    pq_inverse,
    to_rec2020,
)
from model.errors import Ldr2hdrError

peaks = st.floats(300, 10_000)
channel = st.floats(0, 1e4, width=32)
pixels = st.lists(st.tuples(channel, channel, channel), min_size=1, max_size=8).map(
    lambda values: np.array([values], np.float32)
)


@pytest.mark.parametrize(
    ("nits", "signal"),
    # ITU-R BT.2408-7, table 1 and annex 1 (in %), ITU-R BT.2100-2, and 10-bit full codes of ST 2084 itself.
    [(0, 0), (100, 0.5081), (203, 0.5807), (1000, 0.7518), (4000, 0.9026), (10_000, 1)],
)
def test_pq_of_the_levels_that_the_standards_name(nits, signal):
    assert pq(np.float64(nits)) == pytest.approx(signal, abs=1e-4)
    assert pq_inverse(pq(np.float64(nits))) == pytest.approx(nits, rel=1e-9, abs=1e-9)


def test_hlg_of_the_levels_that_the_standards_name():
    grey = np.array([203.0, 1000.0, 0.0])[:, None].repeat(3, 1)
    signal = hlg(grey, 1000)[:, 0]
    # BT.2408-7, table 1: diffuse white at 75 %.
    assert signal == pytest.approx([0.75, 1, 0], abs=5e-4)
    assert hlg(np.full((1, 3), 1000 * (1 / 12) ** 1.2), 1000) == pytest.approx(0.5)  # table 5: where the curves meet
    assert hlg_system_gamma(1000) == pytest.approx(1.2)
    assert hlg_system_gamma(2000) == pytest.approx(1.33, abs=5e-3)  # BT.2390-10, table 6-1
    assert hlg_system_gamma(4000) == pytest.approx(1.2 * 1.111**2)


def test_matrix_from_bt709_is_that_of_bt2087():
    # ITU-R BT.2087-0, M2, printed with four decimals.
    printed = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    np.testing.assert_allclose(to_rec2020(REC709), printed, atol=5e-5)
    np.testing.assert_allclose(to_rec2020(REC2020), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(to_rec2020(P3D65).sum(axis=1), 1)


def test_another_white_stays_white():
    prophoto = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585)
    np.testing.assert_allclose(to_rec2020(prophoto) @ np.ones(3), 1, atol=1e-12)


@pytest.mark.parametrize("peak", [300, 400, 600, 1000, 2000, 10_000])
def test_what_the_camera_did_not_clip_is_passed_on_at_203_nits(peak):
    light = DisplayLight(peak=peak)
    assert light.knee >= 203 * (1 - 1e-9)
    ramp = np.linspace(0, 1, 300, dtype=np.float32).reshape(1, 100, 3)
    np.testing.assert_array_equal(light.nits(ramp), ramp * np.float32(203))
    inside = light.nits(ramp, to_rec2020(REC709))
    np.testing.assert_allclose(inside, ramp @ to_rec2020(REC709).T * 203, rtol=1e-5, atol=1e-4)


def test_knee_is_where_bt2390_has_it():
    light = DisplayLight(peak=1000)
    assert light.brightest == pytest.approx(10_000)
    assert pq(np.float64(light.knee)) == pytest.approx(1.5 * 0.7518271 - 0.5, abs=1e-6)  # KS = 1.5·maxLum − 0.5


def test_shoulder_reaches_the_peak_at_the_brightest():
    light = DisplayLight(peak=1000)
    ends = np.array([[[10_000.0] * 3, [1e6] * 3]], np.float32)
    np.testing.assert_allclose(light.shoulder(ends), 1000, rtol=1e-4)


@given(pixels, peaks)
def test_no_channel_beyond_the_peak_and_hue_kept(values, peak):
    light = DisplayLight(peak=peak)
    shown = light.nits(values)
    assert shown.dtype == np.float32
    assert shown.min() >= 0
    assert shown.max() <= np.float32(peak)
    strongest = values.max(axis=-1, keepdims=True)
    there = strongest[..., 0] > 1e-3
    ratio = (values / np.maximum(strongest, 1e-30))[there]
    np.testing.assert_allclose((shown / np.maximum(shown.max(-1, keepdims=True), 1e-30))[there], ratio, atol=1e-4)


@given(st.lists(st.floats(0, 1e5, width=32), min_size=2, max_size=30), peaks)
def test_brighter_is_never_darker(values, peak):
    grey = np.sort(np.array(values, np.float32))[None, :, None].repeat(3, 2)
    shown = DisplayLight(peak=peak).nits(grey)[0, :, 0]
    assert (np.diff(shown) >= -1e-3 * np.maximum(shown[1:], 1)).all()


@given(pixels, st.floats(400, 4000))
def test_hlg_gives_the_light_back(values, peak):
    nits = np.minimum(values, peak).astype(np.float64) + 1e-3
    signal = hlg(nits, peak)
    assert 0 <= signal.min() <= signal.max() <= 1
    back = hlg_inverse(signal, peak)
    # What HLG can hold comes back; more saturated highlights come back darker, with the same hue.
    np.testing.assert_allclose(back / back.max(-1, keepdims=True), nits / nits.max(-1, keepdims=True), atol=1e-6)
    gamma = hlg_system_gamma(peak)
    fits = ((nits / peak) * ((nits / peak) @ np.array(LUMA_2020))[..., None] ** (1 / gamma - 1)).max(-1) <= 1
    np.testing.assert_allclose(back[fits], nits[fits], rtol=1e-6)


def test_bt1886_darkens_the_shadows_as_a_television_does():
    light = DisplayLight(viewing="bt1886")
    linear = np.array([[[0.0] * 3, [0.2] * 3, [1.0] * 3, [1.4] * 3]], np.float32)
    signal = 1.099 * linear[0, 1:, 0] ** 0.45 - 0.099
    np.testing.assert_allclose(light.nits(linear)[0, :, 0], [0, *(203 * signal**2.4)], rtol=1e-5)


@pytest.mark.parametrize("how", [{"peak": 203.0}, {"peak": 100.0}, {"white": 0.0}, {"peak": 20_000.0}])
def test_no_room_for_highlights_is_refused(how):
    with pytest.raises(Ldr2hdrError, match=r"choose a peak above white and up to 10000\."):
        DisplayLight(**how)
