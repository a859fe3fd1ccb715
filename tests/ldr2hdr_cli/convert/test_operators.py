"""Classical expansion operators: closed forms, order of luminances, edges, any size."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldr2hdr_cli.convert import operators
from ldr2hdr_cli.convert.operators import METHODS, expand
from model.errors import Ldr2hdrError

GLOBAL = ("clip", "landis2002", "akyuz2007")
NEVER_DARKER = tuple(name for name in METHODS if name != "akyuz2007")  # whose stretch pulls blacks down


def grey(values):
    """Display-encoded grey pixels in one row."""
    return np.asarray(values, np.float32)[None, :, None].repeat(3, axis=2)


def lamp(side=120, radius=12, surround=0.3):
    """A round clipped lamp on a plain surround."""
    y, x = np.mgrid[:side, :side] - side // 2
    return np.where((x**2 + y**2 <= radius**2)[..., None], 1.0, surround).astype(np.float32).repeat(3, axis=2)


def test_clip_is_the_linear_picture():
    np.testing.assert_allclose(expand(grey([0, 0.5, 1]), "clip")[0, :, 0], [0, 0.25, 1])
    np.testing.assert_allclose(expand(grey([0, 0.5, 1]), "clip", gamma=3)[0, :, 0], [0, 0.125, 1])


def test_landis_by_hand():
    # encoded √0.75 is 0.75 linear: k = ((0.75 − 0.5)/0.5)² = 0.25, so 0.75·(0.75 + 0.25·5) = 1.5
    result = expand(grey([0.3, 0.75**0.5, 1.0]), "landis2002", peak=5.0)[0, :, 0]
    np.testing.assert_allclose(result, [0.09, 1.5, 5.0], rtol=1e-5)


def test_akyuz_by_hand():
    result = expand(grey([0.5, 0.75**0.5, 1.0]), "akyuz2007", peak=6.0)[0, :, 0]
    np.testing.assert_allclose(result, [0.0, 4.0, 6.0], atol=1e-5)  # 0.25, 0.75, 1 stretched to 0…6


def test_banterle_inverts_the_photographic_operator():
    """Where the density is 1, tone mapping the result with L·(1 + L/p²)/(1 + L) gives the source back."""
    peak = 8.0
    for value in (0.2, 0.6, 0.9, 1.0):
        result = float(expand(grey([value]), "banterle2006", peak=peak)[0, 0, 0])
        assert result * (1 + result / peak**2) / (1 + result) == pytest.approx(value**2, rel=1e-4)


def test_median_cut_shares_the_power():
    rng = np.random.default_rng(5)
    luminance = rng.uniform(0.5, 1.5, (64, 96)).astype(np.float32)
    lights = operators._median_cut(luminance, splits=6)
    power = np.array([light[2] for light in lights])
    assert len(lights) == 64
    assert power.sum() == pytest.approx(luminance.sum(), rel=1e-5)
    assert power.max() / power.min() < 1.5
    assert all(0 <= row < 64 and 0 <= column < 96 for row, column, _ in lights)


def test_median_cut_puts_lights_where_light_is():
    luminance = np.full((64, 64), 1e-3, np.float32)
    luminance[10:14, 40:44] = 50.0
    lights = operators._median_cut(luminance, splits=5)
    near = [
        abs(row - 11.5) < 4 and abs(column - 41.5) < 4 for row, column, power in lights if power > 5
    ]  # 4 is all the rest
    assert len(near) >= 16
    assert all(near)


@pytest.mark.parametrize("method", ["banterle2006", "rempel2007", "kovaleski2014"])
def test_local_operators_lift_a_lamp_and_leave_its_surround(method):
    picture = lamp()
    result, before = expand(picture, method, peak=8.0), expand(picture, "clip")
    lift = result[..., 1] / before[..., 1]
    assert lift[60, 60] > 3
    assert lift[2, 2] < 1.2


@pytest.mark.parametrize("method", ["rempel2007", "kovaleski2014"])
def test_enhancement_stops_at_edges(method):
    """A dark pixel two pixels from a lamp is lifted far less than a bright unclipped one at the same place."""
    dark, bright = lamp(surround=0.3), lamp(surround=0.94)
    lift_dark = expand(dark, method)[60, 75, 1] / 0.3**2
    lift_bright = expand(bright, method)[60, 75, 1] / 0.94**2
    assert lift_dark == pytest.approx(1, abs=0.05)
    assert lift_bright > 1.2


@pytest.mark.parametrize("method", ["rempel2007", "kovaleski2014"])
def test_enhancement_fades_with_distance(method):
    """σ is a seventh of the picture's side or less, so a corner of a bright surround is out of a lamp's reach."""
    lift = expand(lamp(240, 12, surround=0.94), method)[..., 1] / 0.94**2 - 1
    assert lift[120, 136] > 0.1
    assert lift[2, 2] < 0.1 * lift[120, 136]


def cross_bilateral_by_hand(values, guide, sigma, sigma_range):
    """The sum over all pixels that the grid approximates."""
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    result = np.zeros_like(values)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            weight = np.exp(
                -((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2) - (guide - guide[i, j]) ** 2 / (2 * sigma_range**2)
            )
            result[i, j] = (weight * values).sum() / weight.sum()
    return result


def test_bilateral_grid_follows_the_exact_filter():
    rng = np.random.default_rng(8)
    guide = cv2.GaussianBlur(rng.uniform(0, 1, (48, 64)).astype(np.float32), (0, 0), 5)
    guide = (guide - guide.min()) / (guide.max() - guide.min())
    values = (guide > 0.7).astype(np.float32)
    exact = cross_bilateral_by_hand(values, guide, 8.0, 0.1)
    grid = operators._cross_bilateral(values, guide, 8.0, 0.1)
    assert np.abs(grid - exact).mean() < 0.03
    assert np.corrcoef(grid.ravel(), exact.ravel())[0, 1] > 0.98


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(METHODS)),
    st.integers(1, 33),
    st.integers(1, 33),
    st.sampled_from(["noise", "black", "white", "grey"]),
    st.floats(1.0, 64.0),
)
def test_any_picture_expands_to_finite_light(method, height, width, kind, peak):
    rng = np.random.default_rng(height * 100 + width)
    picture = {"noise": rng.random((height, width, 3)), "black": 0.0, "white": 1.0, "grey": 0.6}[kind]
    picture = np.broadcast_to(np.asarray(picture, np.float32), (height, width, 3))
    result = expand(picture, method, peak=peak)
    assert result.dtype == np.float32
    assert result.shape == (height, width, 3)
    assert np.isfinite(result).all()
    assert result.min() >= 0
    if method in NEVER_DARKER:
        assert (result >= expand(picture, "clip") * (1 - 1e-5)).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GLOBAL), st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(1, 64))
def test_global_operators_keep_the_order_of_luminances(method, values, peak):
    result = expand(grey(sorted(values)), method, peak=peak)[0, :, 0]
    assert (np.diff(result) >= -1e-5 * peak).all()


@pytest.mark.parametrize("method", METHODS)
def test_chromaticity_stays(method):
    picture = np.random.default_rng(1).uniform(0.2, 1, (20, 30, 3)).astype(np.float32)
    before, after = picture**2, expand(picture, method)
    lit = after.sum(axis=-1) > 1e-3  # the darkest pixel may have become black
    assert lit.mean() > 0.9
    before, after = before[lit], after[lit]
    np.testing.assert_allclose(after / after.sum(-1, keepdims=True), before / before.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_white_reaches_the_peak_and_never_passes_it(method):
    result = expand(np.ones((24, 36, 3), np.float32), method, peak=10.0)
    assert result.max() == pytest.approx(1.0 if method == "clip" else 10.0, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_source_is_not_written_to(method):
    picture = lamp(side=32, radius=5)
    copy = picture.copy()
    linear = picture**2.2
    expand(picture, method, linear=linear)
    np.testing.assert_array_equal(picture, copy)
    np.testing.assert_array_equal(linear, copy**2.2)


def test_a_picture_already_linear_is_taken_as_given():
    picture = grey([0.2, 0.5, 1.0])
    linear = grey([0.1, 0.3, 1.0])
    np.testing.assert_allclose(expand(picture, "clip", linear=linear), linear)


def test_filters_follow_the_resolution():
    """The same scene at twice the size is lifted alike."""
    small, large = lamp(120, 12), lamp(240, 24)
    for method in ("banterle2006", "rempel2007", "kovaleski2014"):
        centre_small, centre_large = expand(small, method)[60, 60, 1], expand(large, method)[120, 120, 1]
        assert centre_large == pytest.approx(centre_small, rel=0.25)


def test_what_cannot_be_done_is_said():
    picture = np.ones((2, 2, 3), np.float32)
    with pytest.raises(Ldr2hdrError, match="landis2002"):
        expand(picture, "reinhard")
    with pytest.raises(Ldr2hdrError, match="peak of 1 or more"):
        expand(picture, "clip", peak=0.5)
    with pytest.raises(Ldr2hdrError, match="height × width × 3"):
        expand(picture[..., 0], "clip")
