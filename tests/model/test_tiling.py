"""The plan of tiles and the windows that blend them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import NetworkConfig
from model.masked_unet import receptive_radius
from model.tiling import Tile, bytes_per_pixel, clipped_region, largest_tile, plan, window

CONFIG = NetworkConfig(base_channels=32, depth=5)
GRID = CONFIG.multiple  # 32

sides = st.integers(1, 40).map(lambda n: n * GRID)


@given(sides, sides, st.integers(1, 12), st.integers(0, 300), st.integers(0, 400))
def test_tiles_cover_the_region_on_the_grid_and_their_windows_never_sum_to_0(height, width, n, overlap, reach):
    tile = n * GRID
    overlap = min(overlap, tile - GRID)
    region = Tile(3 * GRID, 5 * GRID, height, width)
    total = np.zeros((height, width))
    for one in plan(region, tile, overlap, GRID):
        assert one.top % GRID == one.left % GRID == one.height % GRID == one.width % GRID == 0
        assert one.height <= tile and one.width <= tile
        weight = window(one, region, -(-overlap // GRID) * GRID, reach)
        assert weight.shape == (one.height, one.width)
        assert weight.min() > 0 and weight.max() <= 1
        top, left = one.top - region.top, one.left - region.left
        assert top >= 0 and left >= 0
        total[top : top + one.height, left : left + one.width] += weight
    assert total.min() > 0  # every pixel belongs to a tile, and dividing by the sum makes the weights sum to one


def test_a_window_is_flat_where_nothing_overlaps_and_fades_where_a_neighbour_does():
    region = Tile(0, 0, 256, 512)
    left = window(Tile(0, 0, 256, 320), region, 128, reach=10**6)
    assert (left[:, :192] == 1).all()
    assert (np.diff(left[0, 192:]) <= 0).all() and left[0, -1] < 1e-5
    assert left[0, 192 + 64] == pytest.approx(0.5, abs=0.03)  # half of the way


def test_nothing_outside_the_region_of_what_is_clipped_can_reach_it():
    region = clipped_region(np.arange(1000, 1010), np.array([1500, 1599]), (2000, 3000), CONFIG)
    reach = receptive_radius(CONFIG)
    assert region.top % GRID == region.left % GRID == 0
    assert 1000 - reach - GRID < region.top <= 1000 - reach
    assert 1010 + reach <= region.top + region.height < 1010 + reach + GRID
    assert 1600 + reach <= region.left + region.width < 1600 + reach + GRID


@given(sides, sides, st.floats(1e5, 1e10))
def test_the_largest_tile_fits_the_budget_or_is_the_smallest_there_is(height, width, budget):
    side = largest_tile(Tile(0, 0, height, width), budget, CONFIG, 4)
    pixels = min(side, height) * min(side, width)
    assert side == GRID or pixels * bytes_per_pixel(CONFIG, 4) <= budget
    if height * width * bytes_per_pixel(CONFIG, 4) <= budget:
        assert side == max(height, width)  # the whole, where it fits


def test_a_tile_no_wider_than_its_overlap_is_refused():
    with pytest.raises(ValueError, match="must be larger than the overlap"):
        plan(Tile(0, 0, 512, 512), 128, 128, GRID)
