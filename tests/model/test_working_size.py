"""The level of clipped areas from a reduced picture: means, what is changed, what is kept, and independence of size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import MaskedUNet, NetworkConfig, Reconstructor, load_network, save_network
from model.checkpoint import usual_working_size
from model.masked_unet import initialise
from model.working_size import block_means, match_level, working_edges

DEVICES = ["cpu"] + [name for name, there in (("cuda", torch.cuda.is_available()),) if there]
THRESHOLD = 0.96


def network() -> MaskedUNet:
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), 2)
    with torch.no_grad():
        net.decoder[0].conv.bias.fill_(3)
    return net


def blown(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with a white rectangle in the middle, half as high and half as wide."""
    ldr = np.random.default_rng(seed).uniform(0, 0.9, (height, width, 3)).astype(np.float32)
    ldr[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    return ldr


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(0, 9))
def test_block_means_are_means_of_blocks_that_cover_the_picture(height, width, side, seed):
    values = np.random.default_rng(seed).random((height, width, 2)).astype(np.float32)
    side = min(side, max(height, width))
    rows, columns = working_edges(height, width, side)
    there = torch.from_numpy(values)
    means = block_means(lambda part: there[part], (rows, columns), there).numpy()
    assert max(means.shape[:2]) == side
    bottoms, rights = [*rows[1:], height], [*columns[1:], width]
    for y, (top, bottom) in enumerate(zip(rows, bottoms, strict=True)):
        for x, (left, right) in enumerate(zip(columns, rights, strict=True)):
            expected = values[top:bottom, left:right].mean(axis=(0, 1), dtype=np.float64)
            assert means[y, x] == pytest.approx(expected, abs=1e-5)


def levelled(
    log_hdr: np.ndarray, ldr: np.ndarray, level: float | np.ndarray, side: int, device: str, whole: bool = False
) -> np.ndarray:
    """`match_level` with a reduced picture of `side` pixels, and one level, or one of each column."""
    log, picture = (torch.from_numpy(one.copy()).to(device) for one in (log_hdr, ldr))
    edges = working_edges(*ldr.shape[:2], side)
    small = block_means(lambda part: picture[part], edges, picture)
    clipped = (ldr.max(2) > THRESHOLD) | whole
    span = np.flatnonzero(clipped.any(1)), np.flatnonzero(clipped.any(0))
    columns = torch.from_numpy(np.float32(level * np.ones(len(edges[1])))).to(device)
    small_log = columns.view(1, -1, 1).expand(small.shape).contiguous()
    match_level(log, picture, span, small_log, small, edges, THRESHOLD, 0.7)
    return log.cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
def test_a_level_that_is_right_already_is_left(device):
    ldr = blown(96, 128)
    assert np.abs(levelled(np.full_like(ldr, 2.5), ldr, 2.5, 32, device) - 2.5).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kept", [True, False])
def test_the_level_becomes_that_of_the_small_picture_and_detail_that_was_seen_stays(device, kept):
    ldr = blown(96, 128)
    ldr[..., 2] = 0.5 if kept else ldr[..., 2]  # a channel that is not clipped, in which detail can be seen
    clipped = ldr == 1
    detail = np.tile(np.float32([[0.3, -0.3], [-0.3, 0.3]]), (48, 64))[..., None]  # its mean over a block is 0
    before = 2 + detail * np.ones_like(ldr)
    log_hdr = levelled(before, ldr, 4, 32, device)
    assert np.array_equal(log_hdr[~clipped], before[~clipped])
    # From 2 to 4, but for the 2 % by which a correction fades where little is clipped.
    inside = np.s_[44:52, 60:68, :2]
    assert log_hdr[inside] == pytest.approx((before if kept else np.full_like(before, 2))[inside] + 2 / 1.02, abs=1e-3)
    edge = np.s_[24:26, 60:68]  # it is seen from outside
    assert np.ptp(log_hdr[edge][..., 0]) > 0.3


@pytest.mark.parametrize("device", DEVICES)
def test_the_grids_of_neither_picture_are_seen(device):
    ldr = np.ones((64, 256, 3), np.float32)
    log_hdr = np.full_like(ldr, 2.0)
    log_hdr[:, 128:] = 3  # where two pixels of the decoder meet
    ramp = np.linspace(2, 4, 64)
    waffle = np.tile([-0.2, 0.2], 32)
    result = levelled(log_hdr, ldr, ramp + waffle, 64, device)[32, 16:-16, 0]
    slope = 2 / 63 / 4 / 1.02
    assert np.diff(result) == pytest.approx(slope, abs=slope / 2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_of_the_level_has_no_kinks(device):
    ldr = np.ones((16, 256, 3), np.float32)
    result = levelled(np.full_like(ldr, 2.0), ldr, np.where(np.arange(16) < 8, 2.0, 4.0), 16, device)[8, :, 0]
    assert (np.diff(result) > -1e-5).all()
    assert result[[8, -8]] == pytest.approx([2, 2 + 2 / 1.02], abs=1e-5)
    # A step of 2 over blocks of 16 pixels, weighted 1, 2, 1: a slope of at most 1/16, which changes by 1/16² a pixel.
    assert np.abs(np.diff(result, 2)).max() < 1.1 / 16**2


@pytest.mark.parametrize(("height", "width"), [(8, 60), (60, 9), (47, 53)])
def test_what_is_looked_at_beyond_the_clipped_area_decides_nothing(height, width):
    random = np.random.default_rng(height)
    ldr = random.uniform(0, 0.9, (height, width, 3)).astype(np.float32)
    ldr[height // 2 : height // 2 + 3, width // 3 : width // 3 + 4] = 1
    log_hdr = random.uniform(1, 3, ldr.shape).astype(np.float32)
    one, other = (levelled(log_hdr, ldr, 4, max(height, width) // 2, "cpu", whole) for whole in (False, True))
    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_small_picture_does_not_show_clipped_keeps_its_level(device):
    ldr = np.full((64, 64, 3), 0.2, np.float32)
    ldr[9, 9] = 1  # of a block of 16 pixels, whose mean is well exposed
    assert (levelled(np.full_like(ldr, 2.0), ldr, 6, 16, device) == 2).all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_larger_copy_of_a_picture_gets_the_level_of_the_picture(device):
    ldr = blown(64, 96)
    larger = ldr.repeat(4, 0).repeat(4, 1)
    inside = (slice(20, 44), slice(28, 68))  # of what is clipped, away from its edge
    plain = Reconstructor(network(), device, "fp32")
    levelled = Reconstructor(network(), device, "fp32", working_size=96)
    wanted = plain.reconstruct(ldr)
    assert np.array_equal(levelled.reconstruct(ldr), wanted)  # no larger than the working size: not touched

    def off(reconstructor: Reconstructor) -> float:
        """Mean change of the level, in stops."""
        means = reconstructor.reconstruct(larger).reshape(64, 4, 96, 4, 3).mean(axis=(1, 3))
        over = [one[inside].reshape(6, 4, 10, 4, 3).mean(axis=(1, 3)) for one in (means, wanted)]
        return float(np.abs(np.log2(over[0] / over[1])).mean())

    assert off(levelled) < 0.03 < 0.06 < off(plain)
    well_exposed = larger < THRESHOLD
    assert np.array_equal(levelled.reconstruct(larger)[well_exposed], (larger**2)[well_exposed])


def test_frames_that_stand_still_give_the_same_again():
    ldr = blown(96, 128)
    levelled = Reconstructor(network(), "cpu", "fp32", working_size=64).clip()
    first = levelled.predict_log(ldr)
    assert np.array_equal(first, levelled.predict_log(ldr))
    other = blown(96, 128, seed=1)
    alone = Reconstructor(network(), "cpu", "fp32", working_size=64).predict_log(other)
    assert np.array_equal(levelled.predict_log(other), alone)


def test_the_authors_weights_get_the_papers_method_alone(tmp_path):
    save_network(network(), tmp_path / "ours.safetensors")
    save_network(network(), tmp_path / "authors.pth")
    assert load_network(tmp_path / "authors.pth").config.base_channels == 4
    assert usual_working_size(tmp_path / "ours.safetensors") == usual_working_size() == 512
    assert usual_working_size(tmp_path / "authors.pth") is None


def test_a_working_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="working_size"):
        Reconstructor(network(), "cpu", working_size=0)
