"""Holes, the camera, views of panoramas, patches: what training is fed with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.camera import CameraConfig, Shot, camera_curve, expose, inverse_camera_curve, midtone_scale, photograph
from train.holes import binary_mask, irregular_hole
from train.scenes import scene_of, scenes_split
from train.texture import bilateral, texture_scores
from train.views import focal_length, is_panorama, perspective, reduced, to_tensor


def batch_of(picture: np.ndarray) -> torch.Tensor:
    return to_tensor(np.float32(picture))[None]


def taken(hdr: torch.Tensor, config: CameraConfig, factor: torch.Tensor, seed: int = 0):
    """(ldr, truth) of each of a batch, what is drawn for them following from a seed."""
    rng = np.random.default_rng(seed)
    shot = Shot.drawn(rng.random((len(hdr), 4)), rng.standard_normal((len(hdr), 4)), config)
    return photograph(hdr, factor, shot, config)


@given(st.integers(0, 2**32), st.floats(0.05, 0.6))
def test_a_hole_stays_within_its_share(seed, most):
    hole = irregular_hole(np.random.default_rng(seed), 48, 64, (0.0, most))
    assert hole.mean() <= most
    assert np.array_equal(binary_mask(torch.from_numpy(hole[None]))[0, 0] == 0, hole)


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
    hdr = batch_of(np.exp(rng.normal(0, 1, (64, 64, 3))))
    factor = expose(hdr, 0.1)
    assert float(((hdr * factor).amax(1) >= 1).float().mean()) == pytest.approx(0.1, abs=0.01)
    still = CameraConfig(hue_std=0, saturation_std=0, jpeg_probability=0, midtone_scale=0)
    ldr, truth = taken(hdr, still, factor)
    assert torch.allclose(truth, hdr * factor, rtol=1e-5)
    assert (ldr[truth >= 1] == 1).all()
    assert torch.allclose(ldr * 255, (ldr * 255).round(), atol=1e-4)


@pytest.mark.parametrize(("n", "sigma"), [(0.9, 0.6), (0.7, 0.9), (1.1, 0.4)])
def test_a_truth_on_the_scale_of_the_midtones_agrees_there_with_what_is_converted(n, sigma):
    still = {"hue_std": 0, "saturation_std": 0, "jpeg_probability": 0, "noise_max": 0}
    curve = {"n_mean": n, "n_std": 0, "sigma_mean": sigma, "sigma_std": 0}
    x = inverse_camera_curve(np.linspace(0.01, 1, 4800), n, sigma).astype(np.float32).reshape(40, 40, 3)
    ldr, truth = (
        one[0].permute(1, 2, 0).numpy() for one in taken(batch_of(x), CameraConfig(**still, **curve), torch.ones(1))
    )
    midtones = (ldr >= 0.5) & (ldr <= 0.9)
    assert np.median(truth[midtones] / ldr[midtones] ** 2) == pytest.approx(1, abs=0.005)
    assert np.allclose(truth / x, midtone_scale(n, sigma), rtol=1e-4)


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


@pytest.fixture(scope="module")
def room() -> np.ndarray:
    """A panorama, 2:1: the sky in red rises from the horizon, the ground in green falls; blue is east, to the right."""
    panorama = np.zeros((64, 128, 3), np.float32)
    panorama[:32, :, 0] = np.linspace(1, 0.1, 32)[:, None]
    panorama[32:, :, 1] = np.linspace(0.1, 1, 32)[:, None]
    panorama[:, 64:, 2] = 1  # from straight ahead over the right to behind
    return panorama


def test_a_view_has_the_sky_above_and_the_ground_below(room):
    ahead = perspective(room, 0, 0, 0, 60, (33, 33))
    assert ahead[:15, :, 0].min() > 0 and ahead[:15, :, 1].max() == 0
    assert ahead[18:, :, 1].min() > 0 and ahead[18:, :, 0].max() == 0
    assert (np.diff(ahead[:15, 16, 0]) < 0).all() and (np.diff(ahead[18:, 16, 1]) > 0).all()


def test_looking_up_shows_the_top_rows_of_a_panorama_and_looking_down_the_bottom_ones(room):
    up, down = (perspective(room, 40, pitch, 0, 40, (33, 33)) for pitch in (60, -60))
    assert up[..., 0].min() > 0.3 and up[..., 1].max() == 0
    assert down[..., 1].min() > 0.3 and down[..., 0].max() == 0
    straight = perspective(room, 0, 90, 0, 20, (33, 33))
    assert straight[16, 16, 0] > 0.95  # the zenith is the first row


def test_looking_right_shows_the_right_half_of_a_panorama_and_its_seam_is_behind(room):
    right, left = (perspective(room, yaw, 0, 0, 60, (33, 33)) for yaw in (90, -90))
    assert right[..., 2].min() == pytest.approx(1) and left[..., 2].max() == 0
    ahead, behind = (perspective(room, yaw, 0, 0, 60, (33, 33)) for yaw in (0, 180))
    assert ahead[:, :15, 2].max() == 0 and ahead[:, 18:, 2].min() == pytest.approx(1)
    assert behind[:, :15, 2].min() == pytest.approx(1) and behind[:, 18:, 2].max() == 0


def test_the_right_side_of_a_camera_rolled_clockwise_looks_at_the_ground(room):
    rolled = perspective(room, 0, 0, 45, 60, (33, 33))
    assert rolled[16, 4, 0] > 0.1 and rolled[16, 4, 1] == 0
    assert rolled[16, 28, 1] > 0.1 and rolled[16, 28, 0] == 0


def test_texture_scores_above_a_smooth_highlight_of_the_same_brightness():
    rng = np.random.default_rng(1)
    mask = np.ones((64, 64, 3), np.float32)
    mask[16:48, 16:48] = 0
    smooth, textured = np.full((64, 64, 3), 0.3, np.float32), np.full((64, 64, 3), 0.3, np.float32)
    smooth[16:48, 16:48] = 3.0
    textured[16:48, 16:48] = 3.0 + rng.uniform(-2, 2, (32, 32, 1))
    rough, even = (float(texture_scores(batch_of(one), batch_of(mask))) for one in (textured, smooth))
    assert rough > 2 * even > 0


def test_the_texture_score_is_the_formula_of_the_paper_taken_literally():
    rng = np.random.default_rng(2)
    for height, width, brightness in ((64, 48, 1), (37, 90, 3), (12, 9, 2), (80, 80, 5)):
        hdr = np.exp(brightness * rng.normal(0, 1, (height, width, 3))).astype(np.float32)
        hdr[:, : width // 2] = cv2.GaussianBlur(hdr[:, : width // 2], (0, 0), 4)
        mask = np.clip(1.2 - hdr / 2, 0, 1)
        log = np.log(cv2.cvtColor(hdr, cv2.COLOR_RGB2GRAY) + 1)
        detail = log - cv2.bilateralFilter(log, -1, 100.0, 10.0)
        across, down = cv2.Sobel(detail, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(detail, cv2.CV_32F, 0, 1, ksize=3)
        literal = np.mean((np.abs(across) + np.abs(down)) * (1 - mask.mean(axis=2)))
        score = float(texture_scores(batch_of(hdr), batch_of(mask)))
        assert score == pytest.approx(literal, rel=1e-4, abs=1e-6)


def test_the_bilateral_filter_is_the_sum_over_a_disc_of_neighbours():
    """Spelled out neighbour by neighbour, at the greatest range that a log picture can have."""
    log = np.random.default_rng(3).uniform(0, 14, (40, 36)).astype(np.float32)
    around = np.pad(log.astype(float), 15, mode="reflect")
    above, below = np.zeros(log.shape), np.zeros(log.shape)
    for y, x in np.argwhere(np.ones((31, 31))) - 15:
        if x * x + y * y <= 15 * 15:
            other = around[15 + y : 15 + y + 40, 15 + x : 15 + x + 36]
            weight = np.exp(-(x * x + y * y) / 200) * np.exp(-((other - log) ** 2) / 20000)
            above, below = above + weight * other, below + weight
    assert np.abs(bilateral(torch.from_numpy(log)[None])[0].numpy() - above / below).max() < 2e-5


def test_a_large_panorama_kept_small_shows_the_same_views():
    panorama = cv2.GaussianBlur(np.random.default_rng(4).uniform(0, 9, (258, 516, 3)).astype(np.float32), (0, 0), 2)
    kept = reduced(panorama, focal_length(32, 50))
    assert is_panorama(kept.shape) and kept.size < panorama.size
    for fov in (50, 75, 100):
        assert np.array_equal(
            perspective(kept, 170, 20, 5, fov, (32, 32)), perspective(panorama, 170, 20, 5, fov, (32, 32))
        )


def test_twins_stay_on_one_side_of_the_split():
    names = ["studio_small_01_1k", "studio_small_03_1k", "blue_photo_studio_1k", "brown_photostudio_02_1k"]
    names += [f"{letter}_place_1k" for letter in "abcdefgh"]
    paths = [Path(f"{name}.exr") for name in names]
    assert scene_of(paths[0]) == scene_of(paths[1]) and scene_of(paths[2]) == scene_of(paths[3])
    for seed in range(20):
        training, validation = scenes_split(paths, 0.3, seed)
        assert sorted(training + validation) == sorted(paths) and validation
        assert not {scene_of(p) for p in training} & {scene_of(p) for p in validation}
