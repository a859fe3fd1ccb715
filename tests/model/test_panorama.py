"""Panoramas: views of the sphere and back again, without a seam and with poles."""

import math

import numpy as np
import pytest
import torch

from model import MaskedUNet, NetworkConfig, Reconstructor
from model.masked_unet import initialise
from model.panorama import VIEWS, look, reconstruct_views, view_directions, wrapped

HEIGHT, WIDTH = 96, 192


def sphere(*lamps: tuple[float, float], size: float = 12, height: int = HEIGHT) -> np.ndarray:
    """A panorama with lamps at (longitude, latitude) on soft walls; size: their radius in degrees."""
    phi, theta = np.meshgrid(
        (0.5 - (np.arange(height) + 0.5) / height) * math.pi,
        ((np.arange(2 * height) + 0.5) / height - 1) * math.pi,
        indexing="ij",
    )
    directions = np.stack([np.cos(phi) * np.sin(theta), np.sin(phi), np.cos(phi) * np.cos(theta)], -1)
    codes = 0.4 + 0.2 * directions
    for longitude, latitude in np.radians(lamps):
        lamp = [math.cos(latitude) * math.sin(longitude), math.sin(latitude), math.cos(latitude) * math.cos(longitude)]
        codes[directions @ lamp > math.cos(math.radians(size))] = 1
    return codes.astype(np.float32)


@pytest.fixture(scope="module")
def small() -> Reconstructor:
    return Reconstructor(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), "cpu", "fp32")


def test_a_view_looks_where_it_says() -> None:
    """Straight ahead is the middle of a panorama, to the right and up are positive."""
    where = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(128.0), indexing="ij"))[None]
    for view in VIEWS:
        seen = look(wrapped(where), view_directions(view, 3, slice(0, 3))[None], "nearest")[0, :, 1, 1]
        row, column = (0.5 - view.pitch / 180) * 64, (0.5 + view.yaw / 360) * 128
        assert abs(seen[0] + 0.5 - row) <= 0.5
        if abs(view.pitch) < 90:
            assert min((seen[1] + 0.5 - column) % 128, (column - seen[1] - 0.5) % 128) <= 0.5
    up_right = look(wrapped(where), view_directions(VIEWS[9], 3, slice(0, 3))[None], "nearest")[0, :, 0, 2]
    assert VIEWS[9].pitch == VIEWS[9].yaw == 0 and up_right[0] < 32 and up_right[1] > 64


def test_what_is_said_of_views_comes_back_to_its_place() -> None:
    """With a predictor whose answer can be told from the codes alone."""
    panorama = sphere(height=192)
    panorama = 0.97 + 0.03 * (panorama - panorama.min()) / np.ptp(panorama)  # clipped all over, and smooth
    found = reconstruct_views(lambda codes: (codes - 0.96) * 50, panorama.astype(np.float32), 0.96)
    np.testing.assert_allclose(found, (panorama - 0.96) * 50, atol=0.02)


def test_views_fade_into_each_other() -> None:
    """Views that contradict each other leave no edge, and none leaves a hole."""
    answers = iter(np.random.default_rng(0).permutation(len(VIEWS)) / len(VIEWS) + 1)
    found = reconstruct_views(
        lambda codes: np.full_like(codes, next(answers)), np.ones((180, 360, 3), np.float32), 0.96
    )
    assert found.min() >= 1  # log 2 would be a hole
    around = np.concatenate([found, found[:, :1]], 1)
    assert np.abs(np.diff(found, axis=0)).max() < 0.1
    assert np.abs(np.diff(around, axis=1))[20:-20].max() < 0.1  # a degree is a degree there


def test_a_lamp_on_the_seam_is_as_in_the_middle(small: Reconstructor) -> None:
    panorama = sphere((0, 10), (100, -30))
    rolled = np.roll(panorama, WIDTH // 2, 1)
    there, here = (reconstruct_views(small.predict_log, one, 0.96) for one in (rolled, panorama))
    assert np.ptp(here[panorama.min(2) == 1]) > 0.01  # there is something to compare
    np.testing.assert_allclose(np.roll(there, WIDTH // 2, 1), here, atol=1e-4)
    alone = [small.predict_log(one) for one in (rolled, panorama)]
    inside = panorama.min(2) == 1
    assert np.abs(np.roll(alone[0], WIDTH // 2, 1) - alone[1])[inside].max() > 0.01  # what the panorama as such gives


@pytest.mark.parametrize("latitude", [90, -90])
def test_a_lamp_at_the_pole_is_one_lamp(small: Reconstructor, latitude: int) -> None:
    panorama = sphere((0, latitude))

    def predict(codes: np.ndarray) -> np.ndarray | None:
        log_view = small.predict_log(codes)
        return None if log_view is None else np.where((codes > 0.96).any(2, keepdims=True), log_view + 1, 0)

    found = reconstruct_views(predict, panorama, 0.96)
    row = found[0 if latitude > 0 else -1]
    assert np.isfinite(found).all() and (found >= 0).all()
    assert row.min() >= 1 and row.std(0).max() < 0.02 * row.mean()  # the row is one point
    assert not found[panorama.max(2) <= 0.96].any()


@pytest.mark.parametrize("size", [0.4, 0.9, 3.0])
def test_small_lamps_keep_their_edges(size: float) -> None:
    """Every clipped texel gets what the network says of the lamp, down to lamps of one texel (0.94° wide)."""
    rng = np.random.default_rng(2)
    lamps = [(float(rng.uniform(-180, 180)), float(rng.uniform(-70, 70))) for _ in range(40)]
    panorama = sphere(*lamps, size=size, height=192)

    def predict(codes: np.ndarray) -> np.ndarray | None:
        clipped = (codes > 0.96).any(2, keepdims=True)
        return np.where(clipped, np.float32(3), np.float32(0)).repeat(3, 2) if clipped.any() else None

    found = reconstruct_views(predict, panorama, 0.96)
    clipped = (panorama > 0.96).any(2)
    assert clipped.sum() >= 15
    assert np.mean(np.abs(found[clipped] - 3) < 1e-3) > 0.99


def test_nothing_is_asked_where_nothing_is_clipped() -> None:
    assert reconstruct_views(lambda _codes: pytest.fail("asked"), sphere(), 0.96) is None
