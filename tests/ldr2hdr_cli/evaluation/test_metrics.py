"""Metrics against values worked out another way: loops over pixels, closed forms, published anchors."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldr2hdr_cli.evaluation import metrics
from model.errors import Ldr2hdrError


@pytest.fixture(scope="module")
def pair():
    """A small scene with three stops of highlights, and a reconstruction of it that is off by noise."""
    rng = np.random.default_rng(4)
    truth = np.exp2(rng.uniform(-6, 3, (14, 17, 3))).astype(np.float32)
    prediction = (truth * np.exp2(rng.normal(0, 0.4, truth.shape))).astype(np.float32)
    return prediction, truth


def mean_over(prediction, truth, function, region=None):
    """The same mean in plain Python."""
    values = []
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            for c in range(3):
                inside = region is None or (region[y, x] if region.ndim == 2 else region[y, x, c])
                if inside:
                    values.append(function(float(prediction[y, x, c]), float(truth[y, x, c])))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("gamma", [2.0, 2.2])
@pytest.mark.parametrize("dimensions", [0, 2, 3])
def test_means_equal_plain_loops(pair, gamma, dimensions):
    prediction, truth = pair
    region = {0: None, 2: truth[..., 0] > 1, 3: truth > 1}[dimensions]
    expected = mean_over(prediction, truth, lambda p, t: (p ** (1 / gamma) - t ** (1 / gamma)) ** 2, region)
    assert metrics.mse_gamma(prediction, truth, region, gamma) == pytest.approx(expected, rel=1e-9)
    expected = mean_over(prediction, truth, lambda p, t: math.log2(p / t) ** 2, region) ** 0.5
    assert metrics.rmse_stops(prediction, truth, region) == pytest.approx(expected, rel=1e-9)
    expected = mean_over(prediction, truth, lambda p, t: abs(math.log(1 + p) - math.log(1 + t)), region)
    assert metrics.log_l1(prediction, truth, region) == pytest.approx(expected, rel=1e-9)


def test_numbers_done_by_hand():
    truth = np.full((2, 2, 3), 4.0, np.float32)
    prediction = np.ones((2, 2, 3), np.float32)
    assert metrics.mse_gamma(prediction, truth) == pytest.approx(1.0)  # (√1 − √4)²
    assert metrics.rmse_stops(prediction, truth) == pytest.approx(2.0)
    assert metrics.bias_stops(prediction, truth) == pytest.approx(-2.0)
    assert metrics.log_l1(prediction, truth) == pytest.approx(math.log(5 / 2))


def test_floor_limits_what_black_costs():
    truth = np.full((1, 1, 3), 1e-4, np.float32)
    assert metrics.rmse_stops(np.zeros_like(truth), truth) == pytest.approx(0.0, abs=1e-6)
    assert metrics.rmse_stops(np.zeros_like(truth), truth * 2, floor=5e-5) == pytest.approx(2.0, rel=1e-5)


def test_negative_predictions_count_as_black():
    truth = np.full((1, 2, 3), 0.25, np.float32)
    assert metrics.mse_gamma(-truth, truth) == pytest.approx(0.25)
    assert metrics.log_l1(-truth, truth) == pytest.approx(math.log(1.25))


def test_pu21_maps_a_100_nit_white_to_256_and_black_to_0():
    assert metrics.pu21_encode(np.array(100.0)) == pytest.approx(256.0, abs=0.5)
    assert metrics.pu21_encode(np.array(0.005)) == pytest.approx(0.0, abs=1e-3)
    assert metrics.pu21_encode(np.array(10000.0)) == pytest.approx(595.39, abs=0.01)


@given(st.lists(st.floats(0.0, 2e4), min_size=2, max_size=20))
def test_pu21_never_falls(luminances):
    encoded = metrics.pu21_encode(np.sort(np.array(luminances)))
    assert np.all(np.diff(encoded) >= 0)
    assert np.isfinite(encoded).all()


def pu21_by_hand(nits):
    y = min(max(nits, 0.005), 10000.0) ** 0.9062562627
    return 596.3148142 * (
        ((0.353487901 + 0.3734658629 * y) / (1 + 8.277049286e-05 * y)) ** 0.09150303166 - 0.9099517204
    )


@pytest.mark.parametrize(("peak", "white"), [(4000.0, 100.0), (600.0, 203.0)])
def test_pu21_psnr_equals_a_plain_loop(pair, peak, white):
    prediction, truth = pair
    region = truth.max(axis=-1) > 1

    def square(p, t):
        return (pu21_by_hand(min(p * white, peak)) - pu21_by_hand(min(t * white, peak))) ** 2

    expected = 10 * math.log10(256**2 / mean_over(prediction, truth, square, region))
    assert metrics.pu21_psnr(prediction, truth, region, peak, white) == pytest.approx(expected, abs=1e-6)


def test_nothing_above_the_peak_is_seen():
    truth = np.full((4, 4, 3), 50.0, np.float32)
    assert metrics.pu21_psnr(truth * 2, truth, peak=4000.0, white=100.0) == math.inf
    assert math.isfinite(metrics.pu21_psnr(truth * 2, truth, peak=10000.0, white=100.0))


def ssim_by_hand(first, second, dynamic_range):
    """Wang et al. 2004 with explicit sums over an 11×11 window, edges repeated."""
    height, width = first.shape
    weight = [math.exp(-(k**2) / (2 * 1.5**2)) for k in range(-5, 6)]
    weight = [w / sum(weight) for w in weight]
    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sums = [0.0] * 5
            for i in range(-5, 6):
                for j in range(-5, 6):
                    at = min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)
                    a, b, w = first[at], second[at], weight[i + 5] * weight[j + 5]
                    for k, value in enumerate((a, b, a * a, b * b, a * b)):
                        sums[k] += w * value
            ma, mb, aa, bb, ab = sums
            result[y, x] = ((2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)) / (
                (ma**2 + mb**2 + c1) * (aa - ma**2 + bb - mb**2 + c2)
            )
    return result


def test_pu21_ssim_equals_explicit_sums(pair):
    prediction, truth = pair
    region = truth[..., 1] > 1

    def encoded(picture):
        luminance = 0.2126 * picture[..., 0] + 0.7152 * picture[..., 1] + 0.0722 * picture[..., 2]
        return np.array([[pu21_by_hand(min(100.0 * float(v), 4000.0)) for v in row] for row in luminance])

    expected = ssim_by_hand(encoded(prediction), encoded(truth), 256.0)
    assert metrics.pu21_ssim(prediction, truth) == pytest.approx(expected.mean(), abs=1e-6)
    assert metrics.pu21_ssim(prediction, truth, region) == pytest.approx(expected[region].mean(), abs=1e-6)


def test_ssim_sees_lost_structure_that_a_mean_does_not():
    rng = np.random.default_rng(0)
    truth = np.exp2(rng.normal(0, 1, (32, 32, 1))).astype(np.float32).repeat(3, axis=2)
    flat = np.full_like(truth, np.exp2(np.log2(truth).mean()))
    brighter = truth * np.exp2(0.25).astype(np.float32)
    assert metrics.pu21_ssim(brighter, truth) > 0.95
    assert metrics.pu21_ssim(flat, truth) < 0.5


def test_stops_above_the_clip_level_are_binned_and_signed():
    # One value per bin, the prediction off by a different power of two in each, and one under the clip level.
    truth = np.exp2(np.array([0.25, 0.75, 1.5, 3.0, 5.0, -0.1])).reshape(2, 1, 3).astype(np.float32)
    error = np.array([1.0, -1.0, 0.5, -2.0, -3.0, 7.0]).reshape(2, 1, 3)
    rows = metrics.by_stops_above((truth * np.exp2(error)).astype(np.float32), truth, np.ones((2, 1, 3), bool))
    assert [(row["from"], row["to"]) for row in rows] == [(0, 0.5), (0.5, 1), (1, 2), (2, 4), (4, None)]
    assert [row["count"] for row in rows] == [1] * 5
    np.testing.assert_allclose([row["bias"] for row in rows], [1, -1, 0.5, -2, -3], atol=1e-5)
    np.testing.assert_allclose([row["rmse"] for row in rows], [1, 1, 0.5, 2, 3], atol=1e-5)


def test_bins_take_clipped_channels_only_and_edges_belong_to_the_bin_above():
    truth = np.full((1, 2, 3), 2.0, np.float32)  # exactly one stop over
    channels = np.zeros((1, 2, 3), bool)
    channels[0, 0, 0] = True
    rows = metrics.by_stops_above(truth, truth, channels)
    assert [row["count"] for row in rows] == [0, 0, 1, 0, 0]
    assert math.isnan(rows[0]["bias"])
    assert math.isnan(rows[0]["rmse"])
    assert rows[2]["bias"] == 0


def test_one_mean_hides_what_the_bins_show():
    """Lamps two stops short and rock lifted two stops: unbiased together, plainly wrong apart."""
    truth = np.concatenate([np.full((4, 4, 3), 1.2), np.full((4, 4, 3), 30.0)]).astype(np.float32)
    prediction = np.concatenate([np.full((4, 4, 3), 4.8), np.full((4, 4, 3), 7.5)]).astype(np.float32)
    rows = metrics.by_stops_above(prediction, truth, np.ones(truth.shape, bool))
    assert metrics.bias_stops(prediction, truth) == pytest.approx(0, abs=1e-6)
    assert rows[0]["bias"] == pytest.approx(2, abs=1e-5)
    assert rows[4]["bias"] == pytest.approx(-2, abs=1e-5)


def test_chromaticity_of_the_primaries_and_white():
    """u′, v′ of Rec.709's primaries, from their x, y in BT.709 by u′ = 4x/(−2x + 12y + 3), v′ = 9y/(…)."""

    def uv(x, y):
        return np.array([4 * x, 9 * y]) / (-2 * x + 12 * y + 3)

    colours = {(1, 0, 0): uv(0.64, 0.33), (0, 1, 0): uv(0.30, 0.60), (0, 0, 1): uv(0.15, 0.06)}
    white = uv(0.3127, 0.3290)
    grey = np.full((1, 1, 3), 0.5, np.float32)
    for rgb, expected in colours.items():
        picture = np.array(rgb, np.float32).reshape(1, 1, 3)
        distance = math.hypot(*(expected - white))
        assert metrics.chroma_error(picture, grey) == pytest.approx(distance, abs=2e-4)


def test_chromaticity_ignores_brightness_and_black_is_neutral(pair):
    _, truth = pair
    assert metrics.chroma_error(truth * 3, truth) == pytest.approx(0, abs=1e-6)
    black, white = np.zeros((1, 1, 3), np.float32), np.ones((1, 1, 3), np.float32)
    assert metrics.chroma_error(black, white) == pytest.approx(0, abs=1e-9)


def test_chroma_error_looks_inside_the_region_only():
    truth = np.ones((1, 2, 3), np.float32)
    prediction = truth.copy()
    prediction[0, 1] = (1, 0, 0)
    assert metrics.chroma_error(prediction, truth, np.array([[True, False]])) == pytest.approx(0, abs=1e-9)
    assert metrics.chroma_error(prediction, truth, np.array([[False, True]])) > 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 30.0))
def test_equal_pictures_score_perfectly(height, width, level):
    picture = np.random.default_rng(height * 13 + width).uniform(0, level, (height, width, 3)).astype(np.float32)
    result = metrics.score(picture, picture.copy(), picture > level / 2, cvvdp=False)
    for key in ("mse_gamma", "rmse_stops", "log_l1"):
        assert result[key] == 0
    assert result["pu21_psnr"] == math.inf
    assert result["pu21_ssim"] == pytest.approx(1)


def test_score_has_the_same_names_whatever_is_clipped(pair):
    prediction, truth = pair
    some = metrics.score(prediction, truth, truth > 1, cvvdp=False)
    none = metrics.score(prediction, truth, np.zeros(truth.shape, bool), cvvdp=False)
    per_pixel = metrics.score(prediction, truth, (truth > 1).any(axis=-1), cvvdp=False)
    assert some.keys() == none.keys() == per_pixel.keys()
    assert none["clipped_share"] == 0
    assert math.isnan(none["rmse_stops_clipped"])
    assert math.isnan(none["pu21_psnr_clipped"])
    assert some["rmse_stops_clipped"] == per_pixel["rmse_stops_clipped"]
    assert some["clipped_share"] == pytest.approx((truth > 1).any(axis=-1).mean())
    region = (truth > 1).any(axis=-1)
    assert some["pu21_ssim_clipped"] == pytest.approx(metrics.pu21_ssim(prediction, truth, region))
    assert some["mse_gamma_clipped"] == pytest.approx(metrics.mse_gamma(prediction, truth, region))


def test_an_overflown_sun_counts_as_the_largest_half(pair):
    prediction, truth = (picture.copy() for picture in pair)
    truth[0, 0] = np.inf
    with_sun = truth.copy()
    with_sun[0, 0] = 65504
    same = metrics.score(prediction, truth, truth > 1, cvvdp=False)
    assert same == metrics.score(prediction, with_sun, truth > 1, cvvdp=False)
    assert metrics.rmse_stops(truth, truth) == 0
    assert math.isfinite(metrics.mse_gamma(truth, prediction))
    assert metrics.chroma_error(truth, with_sun) == 0


def test_a_nan_is_never_averaged_away(pair):
    prediction, truth = (picture.copy() for picture in pair)
    prediction[3, 4, 1] = np.nan
    result = metrics.score(prediction, truth, np.ones(truth.shape, bool), cvvdp=False)
    for key in ("mse_gamma", "rmse_stops", "log_l1", "pu21_psnr", "pu21_ssim", "chroma_error_clipped"):
        assert math.isnan(result[key]), key


def test_pictures_of_different_sizes_are_refused(pair):
    prediction, truth = pair
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.score(prediction[1:], truth, truth > 1, cvvdp=False)


def test_colorvideovdp_without_a_network(monkeypatch):
    """10 JOD for equal pictures, less for worse ones, in order; no socket is opened."""
    pytest.importorskip("pycvvdp")
    import socket

    def refuse(*_args, **_kwargs):
        raise AssertionError("the metric reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    rng = np.random.default_rng(1)
    truth = np.exp2(rng.normal(-2, 1.5, (48, 64, 3))).astype(np.float32)
    slightly = truth * np.exp2(rng.normal(0, 0.05, truth.shape)).astype(np.float32)
    badly = truth * np.exp2(rng.normal(0, 1.0, truth.shape)).astype(np.float32)
    scores = [metrics.cvvdp_jod(p, truth) for p in (truth, slightly, badly)]
    assert scores[0] == pytest.approx(10.0, abs=1e-4)
    assert scores[0] > scores[1] > scores[2]
    assert metrics.cvvdp_jod(np.ones((1, 1, 3), np.float32), np.ones((1, 1, 3), np.float32)) == pytest.approx(10)
    badly[3, 4] = np.nan
    assert math.isnan(metrics.cvvdp_jod(badly, truth))
    assert "cvvdp_jod" in metrics.score(truth, truth, truth > 1)


def test_colorvideovdp_clamps_to_the_peak():
    pytest.importorskip("pycvvdp")
    truth = np.full((32, 32, 3), 0.5, np.float32)
    truth[8:24, 8:24] = 20.0
    brighter = (truth * np.where(truth > 1, 2, 1)).astype(np.float32)
    assert metrics.cvvdp_jod(brighter, truth, peak=1000.0) == pytest.approx(10, abs=1e-4)  # 2000 and 4000 cd/m²
    assert metrics.cvvdp_jod(brighter, truth, peak=8000.0) < 9.9


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    metrics._cvvdp.cache_clear()
    picture = np.ones((16, 16, 3), np.float32)
    with pytest.raises(Ldr2hdrError, match=r'pip install "ldr2hdr\[evaluate\]"'):
        metrics.cvvdp_jod(picture, picture)


def test_hdrvdp_of_equal_worse_and_tiny_pictures():
    rng = np.random.default_rng(1)
    truth = np.exp2(rng.normal(-2, 1.5, (48, 64, 3))).astype(np.float32)
    slightly = truth * np.exp2(rng.normal(0, 0.2, truth.shape)).astype(np.float32)
    badly = truth * np.exp2(rng.normal(0, 1.0, truth.shape)).astype(np.float32)
    best, worse, worst = (metrics.hdrvdp(p, truth) for p in (truth, slightly, badly))
    assert best == pytest.approx({"hdrvdp3_q": 10.0, "hdrvdp3_jod": 10.0, "hdrvdp2_q": 100.0})
    assert all(best[key] > worse[key] > worst[key] for key in best)
    badly[3, 4] = np.nan
    assert all(math.isnan(value) for value in metrics.hdrvdp(badly, truth).values())
    one = np.ones((1, 1, 3), np.float32)
    assert metrics.hdrvdp(one, one) == pytest.approx(best)


def test_hdrvdp_sees_what_the_display_shows():
    truth = np.full((32, 32, 3), 0.5, np.float32)
    truth[8:24, 8:24] = 20.0
    brighter = (truth * np.where(truth > 1, 2, 1)).astype(np.float32)  # 2000 and 4000 cd/m²
    assert metrics.hdrvdp(brighter, truth, peak=1000.0)["hdrvdp3_q"] == pytest.approx(10)
    seen = metrics.hdrvdp(brighter, truth, peak=8000.0)
    assert seen["hdrvdp3_q"] < 9.99
    assert metrics.hdrvdp(brighter, truth, peak=8000.0, pixels_per_degree=20.0) != pytest.approx(seen, rel=1e-3)
