"""Scale and camera curve are taken out of well-exposed pixels, and cannot be bought with highlights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldr2hdr_cli.evaluation.alignment import align_scale, fit_curve


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(11)
    return np.exp2(rng.uniform(-7, 4, (60, 80, 3))).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_a_scaled_picture_is_brought_back(scale):
    truth = np.exp2(np.random.default_rng(2).uniform(-7, 3, (20, 20, 3))).astype(np.float32)
    factor = align_scale((truth * scale).astype(np.float32), truth, truth < 1)
    assert factor * scale == pytest.approx(1, rel=1e-5)


def test_highlights_do_not_move_the_scale(scene):
    well_exposed = scene < 1
    invented = np.where(well_exposed, scene, 1000.0).astype(np.float32)
    assert align_scale(invented, scene, well_exposed) == 1.0


def test_a_minority_of_broken_values_does_not_move_the_scale(scene):
    well_exposed = (scene < 1).all(axis=-1)
    broken = scene * 3
    broken[:20] = 0.0
    broken[20:30] *= 50
    assert align_scale(broken, scene, well_exposed) == pytest.approx(1 / 3, rel=1e-5)


def test_nothing_well_exposed_leaves_the_picture_alone(scene):
    nothing = np.zeros(scene.shape, bool)
    assert align_scale(scene * 2, scene, nothing) == 1.0
    np.testing.assert_allclose(fit_curve(scene, scene, nothing)(scene), scene)
    assert align_scale(np.zeros_like(scene), scene, scene < 1) == 1.0


def camera(linear):
    """A smooth monotone curve that is no power and no factor: (1 + σ)·xⁿ/(xⁿ + σ), Eilertsen et al. 2017."""
    return 1.6 * linear**0.9 / (linear**0.9 + 0.6)


def test_the_curve_of_a_camera_is_removed(scene):
    well_exposed = scene < 1
    seen = camera(scene).astype(np.float32)
    curve = fit_curve(seen, scene, well_exposed)
    inside = well_exposed & (scene > 0.01)
    before = np.abs(np.log2(seen / scene))[inside]
    after = np.abs(np.log2(curve(seen) / scene))[inside]
    assert before.max() > 0.5
    assert after.max() < 0.1
    assert np.median(after) < 0.01


def test_the_curve_never_falls_even_through_noise(scene):
    rng = np.random.default_rng(3)
    noisy = (scene * np.exp2(rng.normal(0, 1.0, scene.shape))).astype(np.float32)
    curve = fit_curve(noisy, scene, scene < 1)
    values = curve(np.linspace(0, 50, 5000, dtype=np.float32))
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.all(np.diff(values) >= -1e-6 * values[1:])
    assert curve(np.array([0.0, -1.0])).tolist() == [0, 0]
    assert np.isnan(curve(np.array([np.nan]))).all()


def test_above_the_fitted_range_the_curve_is_a_factor(scene):
    """Stops between highlights survive the fit: it can neither stretch nor squeeze them."""
    well_exposed = scene < 1
    seen = (scene**0.8 * 2).astype(np.float32)
    curve = fit_curve(seen, scene, well_exposed)
    top = seen[well_exposed].max()
    highlights = curve(np.array([2, 4, 8, 16], dtype=np.float32) * top)
    np.testing.assert_allclose(highlights[1:] / highlights[:-1], 2.0, rtol=1e-5)
    assert curve(np.array([top]))[0] == pytest.approx(1.0, rel=0.1)  # scene = 1 at the brightest seen value


def test_highlights_take_no_part_in_the_curve(scene):
    well_exposed = scene < 1
    other = np.where(well_exposed, scene, 7.0).astype(np.float32)
    a, b = fit_curve(scene, scene, well_exposed), fit_curve(other, scene, well_exposed)
    np.testing.assert_array_equal(a(scene), b(scene))


def test_two_level_pictures_have_a_curve_too():
    truth = np.tile(np.array([0.1, 0.4], np.float32), 60).reshape(4, 10, 3)
    seen = np.where(truth < 0.2, 0.3, 0.5).astype(np.float32)
    mapped = fit_curve(seen, truth, np.ones((4, 10), bool))(seen)
    np.testing.assert_allclose(mapped, truth, rtol=1e-5)
    one_level = np.full((6, 6, 3), 0.5, np.float32)
    np.testing.assert_allclose(fit_curve(one_level, one_level / 2, np.ones((6, 6), bool))(one_level), 0.25, rtol=1e-5)
