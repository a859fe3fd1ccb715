"""Classical expansion operators: closed forms, order of luminances, edges, any size."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldr2hdr_cli.convert.operators import METHODS, expand
from ldr2hdr_cli.convert.operators.filters import cross_bilateral, median_cut
from model.errors import Ldr2hdrError

GLOBAL = ("clip", "landis2002", "akyuz2007", "masia2009", "masia2017", "bist2017", "luzardo2018")
NEVER_DARKER = ("clip", "landis2002", "banterle2006", "rempel2007", "didyk2008", "kovaleski2014")


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


def key_by_hand(luminance):
    """Akyüz and Reinhard 2006, between the 1st and the 99th percentile."""
    low, high = np.log10(np.quantile(luminance, [0.01, 0.99]))
    return (np.log10(luminance).mean() - low) / (high - low)


def test_masia2009_by_hand():
    """A bright picture: key 0.81, γ 2.2."""
    linear = np.concatenate([np.linspace(0.1, 0.6, 60), np.linspace(0.6, 1.0, 140)])
    gamma = 10.44 * key_by_hand(linear) - 6.282
    assert gamma > 1.5
    result = expand(grey(np.sqrt(linear)), "masia2009", peak=10.0)[0, :, 0]
    np.testing.assert_allclose(result, 10.0 * linear**gamma, rtol=1e-3)


def test_masia2009_of_a_dark_picture_is_a_stretch():
    linear = np.concatenate([np.linspace(0.01, 0.03, 170), np.linspace(0.03, 1.0, 30)])
    assert 10.44 * key_by_hand(linear) - 6.282 < 1
    np.testing.assert_allclose(expand(grey(np.sqrt(linear)), "masia2009", peak=4.0)[0, :, 0], 4 * linear, rtol=1e-3)


def test_masia2017_by_hand():
    linear = np.concatenate([np.linspace(0.2, 0.8, 80), np.ones(20)])
    mean = np.log(linear).mean()
    gamma = 2.4379 + 0.2319 * mean - 1.1228 * key_by_hand(linear) + 0.0085 * 20
    assert gamma > 1.2
    result = expand(grey(np.sqrt(linear)), "masia2017", peak=10.0)[0, :, 0]
    np.testing.assert_allclose(result, 10.0 * linear**gamma, rtol=1e-3)


@pytest.mark.parametrize(("median", "lightness"), [(0.18418652, 50.0), (0.7, 86.996), (0.005, 4.5165)])
def test_bist_by_hand(median, lightness):
    """L* of the median from tables of CIE 1976."""
    linear = np.array([median / 2, median, 1.0])
    gamma = 1 + np.log10(100 / lightness)
    result = expand(grey(np.sqrt(linear)), "bist2017", peak=6.0)[0, :, 0]
    np.testing.assert_allclose(result, 6.0 * linear**gamma, rtol=2e-4)


def test_luzardo_keeps_middle_grey_and_takes_white_to_the_peak():
    result = expand(grey(np.sqrt([0.18, 0.5, 1.0])), "luzardo2018", peak=8.0)[0, :, 0]
    # b and c of x/(b·x⁴ + c), so that 0.18 → 0.18/8 and 1 → 1: two linear equations.
    b, c = np.linalg.solve([[0.18**4, 1], [1, 1]], [8, 1])
    np.testing.assert_allclose(result, [0.18, 8 * 0.5 / (b * 0.5**4 + c), 8.0], rtol=1e-5)


def test_meylan_by_hand():
    """Far from edges: 67 % of the peak for what is not a highlight, the rest for highlights."""
    linear = np.full((200, 200), 0.2, np.float32)
    linear[:, 100:] = 0.5
    linear[20:23, 20:23], linear[60:63, 60:63] = 0.8, 1.0  # narrower than a fiftieth of the height
    result = expand(np.sqrt(linear)[..., None].repeat(3, axis=2), "meylan2006", peak=10.0)[..., 0]
    assert result[150, 30] == pytest.approx(10 * 0.67 * 0.2 / 0.8, rel=1e-5)
    assert result[150, 170] == pytest.approx(10 * 0.67 * 0.5 / 0.8, rel=1e-5)
    assert result[61, 61] > result[150, 170]
    assert result.max() <= 10


def test_meylan_without_highlights_is_a_stretch():
    """A white wall is no highlight, however bright."""
    picture = grey(np.linspace(0.1, 1.0, 64)).repeat(64, axis=0)
    np.testing.assert_allclose(expand(picture, "meylan2006", peak=5.0), 5 * picture**2, rtol=1e-5)


def scene():
    """A lamp, a glint, an over-exposed sky and a picture on a bright wall, 256×256, display-encoded."""
    picture = np.full((256, 256, 3), 0.4, np.float32)
    picture[:40] = 1.0  # 16 % of the picture
    picture[120:132, 60:72] = 1.0
    picture[200:202, 200:202] = 1.0
    picture[90:150, 160:220] = 0.93
    picture[110:120, 180:190] = 1.0
    return picture


def test_didyk_tells_lights_reflections_and_surfaces_apart():
    result = expand(scene(), "didyk2008", peak=9.0)[..., 0]
    assert result[126, 66] == pytest.approx(9.0)  # the lamp
    assert result[201, 201] == pytest.approx(5.0)  # the glint, half of the way
    assert result[20, 128] == pytest.approx(1.0)  # the sky
    assert result[115, 185] == pytest.approx(1.0)  # next to white that is nearly as bright


def test_didyk_leaves_what_is_not_clipped():
    picture = scene()
    result, before = expand(picture, "didyk2008"), expand(picture, "clip")
    unclipped = picture.max(axis=2) < 0.96
    np.testing.assert_array_equal(result[unclipped], before[unclipped])


def test_didyk_stretches_a_lamp_from_its_darkest_to_its_brightest_value():
    picture = np.full((200, 200, 3), 0.3, np.float32)
    ramp = np.linspace(0.97, 1.0, 20, dtype=np.float32)
    picture[100:120, 100:120] = ramp[None, :, None]
    result = expand(picture, "didyk2008", peak=8.0)[110, 100:120, 0]
    assert result[0] == pytest.approx(0.97**2, rel=1e-5)
    assert result[-1] == pytest.approx(8.0, rel=1e-5)
    assert (np.diff(result) > 0).all()


def test_median_cut_shares_the_power():
    rng = np.random.default_rng(5)
    luminance = rng.uniform(0.5, 1.5, (64, 96)).astype(np.float32)
    lights = median_cut(luminance, splits=6)
    power = np.array([light[2] for light in lights])
    assert len(lights) == 64
    assert power.sum() == pytest.approx(luminance.sum(), rel=1e-5)
    assert power.max() / power.min() < 1.5
    assert all(0 <= row < 64 and 0 <= column < 96 for row, column, _ in lights)


def test_median_cut_puts_lights_where_light_is():
    luminance = np.full((64, 64), 1e-3, np.float32)
    luminance[10:14, 40:44] = 50.0
    lights = median_cut(luminance, splits=5)
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
    grid = cross_bilateral(values, guide, 8.0, 0.1)
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
    left_alone = method in ("clip", "didyk2008")  # which takes a white picture for a surface
    assert result.max() == pytest.approx(1.0 if left_alone else 10.0, rel=1e-4)


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
    for method in ("banterle2006", "rempel2007", "didyk2008", "kovaleski2014"):
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
