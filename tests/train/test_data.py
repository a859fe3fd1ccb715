"""Holes, the camera, views of panoramas, patches: what training is fed with."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.camera import CameraConfig, camera_curve, expose, inverse_camera_curve, photograph
from train.holes import binary_mask, irregular_hole
from train.panorama import is_panorama, perspective
from train.patches import scene_of, scenes_split, texture_score


@given(st.integers(0, 2**32), st.floats(0.05, 0.6))
def test_a_hole_stays_within_its_share(seed, most):
    hole = irregular_hole(np.random.default_rng(seed), 48, 64, (0.0, most))
    assert hole.mean() <= most
    assert np.array_equal(binary_mask(hole)[..., 0] == 0, hole)


def test_holes_reach_what_is_asked_for():
    shares = [irregular_hole(np.random.default_rng(i), 64, 64, (0.3, 0.6)).mean() for i in range(20)]
    assert min(shares) > 0.25 and max(shares) <= 0.6


@given(st.floats(0.5, 1.5), st.floats(0.2, 1.2))
def test_the_camera_curve_runs_from_0_to_1_and_never_falls(n, sigma):
    x = np.linspace(0, 1, 50)
    y = camera_curve(x, n, sigma)
    assert y[0] == 0 and y[-1] == pytest.approx(1)
    assert (np.diff(y) > 0).all()
    assert np.allclose(inverse_camera_curve(y, n, sigma), x, atol=1e-9)


def test_the_camera_clips_the_share_it_is_asked_for_and_truth_goes_on_above():
    rng = np.random.default_rng(0)
    hdr = np.exp(rng.normal(0, 1, (64, 64, 3))).astype(np.float32)
    factor = expose(hdr, 0.1)
    assert ((hdr * factor).max(2) >= 1).mean() == pytest.approx(0.1, abs=0.01)
    still = CameraConfig(hue_std=0, saturation_std=0, jpeg_probability=0)
    ldr, truth = photograph(hdr, rng, still, factor)
    assert np.allclose(truth, hdr * factor, rtol=1e-5)
    assert (ldr[truth >= 1] == 1).all()
    assert np.allclose(ldr * 255, np.rint(ldr * 255), atol=1e-4)


def test_a_lamp_straight_ahead_is_in_the_middle_of_the_view_and_one_at_the_right_is_not():
    panorama = np.zeros((64, 128, 3), np.float32)
    panorama[31:33, 63:65] = 1
    assert is_panorama(panorama.shape)
    ahead = perspective(panorama, 0, 0, 0, 60, (33, 33))
    assert ahead[16, 16].min() > 0.9
    assert perspective(panorama, 90, 0, 0, 60, (33, 33)).max() == 0
    turned = perspective(panorama, -20, 0, 0, 60, (33, 33))
    assert turned[16].max(axis=1).argmax() > 20  # looking to the left, it lies to the right
    raised = perspective(panorama, 0, 20, 0, 60, (33, 33))
    assert raised[:, 16].max(axis=1).argmax() > 20  # looking up, it lies below


def test_texture_scores_above_a_smooth_highlight_of_the_same_brightness():
    rng = np.random.default_rng(1)
    mask = np.ones((64, 64, 3), np.float32)
    mask[16:48, 16:48] = 0
    smooth, textured = np.full((64, 64, 3), 0.3, np.float32), np.full((64, 64, 3), 0.3, np.float32)
    smooth[16:48, 16:48] = 3.0
    textured[16:48, 16:48] = 3.0 + rng.uniform(-2, 2, (32, 32, 1))
    assert texture_score(textured, mask) > 2 * texture_score(smooth, mask) > 0


def test_twins_stay_on_one_side_of_the_split():
    names = ["studio_small_01_1k", "studio_small_03_1k", "blue_photo_studio_1k", "brown_photostudio_02_1k"]
    names += [f"{letter}_place_1k" for letter in "abcdefgh"]
    paths = [Path(f"{name}.exr") for name in names]
    assert scene_of(paths[0]) == scene_of(paths[1]) and scene_of(paths[2]) == scene_of(paths[3])
    for seed in range(20):
        training, validation = scenes_split(paths, 0.3, seed)
        assert sorted(training + validation) == sorted(paths) and validation
        assert not {scene_of(p) for p in training} & {scene_of(p) for p in validation}
