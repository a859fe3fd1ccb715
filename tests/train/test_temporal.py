"""The steadiness term: nothing for what moves with its picture, something for what does not."""

import numpy as np
import torch

from train.temporal import SHIFT, Movement, temporal_loss, with_moved


def still(count: int = 2) -> Movement:
    return Movement(torch.eye(2, 3).repeat(count, 1, 1), torch.zeros(count), 0)


def drawn(count: int = 2, size: int = 64, seed: int = 0) -> Movement:
    return Movement.drawn(np.random.default_rng(seed), count, size)


def blown(count: int = 2, size: int = 64) -> torch.Tensor:
    """A soft texture with a blown square in its middle."""
    ldr = 0.5 + 0.3 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    ldr[..., 16:48, 16:48] = 1
    return ldr


def smooth(ldr: torch.Tensor) -> torch.Tensor:
    """A "network" that moves with its picture: a wide blur."""
    kernel = torch.ones(3, 1, 9, 9) / 81
    return 1 + torch.nn.functional.conv2d(ldr, kernel, padding=4, groups=3)


def test_standing_still_costs_nothing():
    ldr = blown()
    made = torch.rand(ldr.shape)
    assert temporal_loss(made, made, ldr, still(), 0.96, floor=False) < 1e-6


def test_a_shift_moves_by_its_pixels():
    matrix = torch.eye(2, 3)[None].clone()
    matrix[0, 0, 2] = 2 * 3 / 64  # three pixels: what was at column 13 comes to 10
    picture = torch.zeros(1, 1, 64, 64)
    picture[0, 0, 20, 13] = 1
    moved = Movement(matrix, torch.zeros(1), 0).moved(picture)
    assert torch.allclose(moved[0, 0, 20, 10], torch.tensor(1.0), atol=1e-4) and moved.sum() < 1.001


def test_what_is_drawn_stays_small_and_follows_from_the_generator():
    one, other = drawn(64), drawn(64)
    assert torch.equal(one.matrix, other.matrix) and torch.equal(one.noise, other.noise)
    assert one.matrix[:, :, 2].abs().max() <= SHIFT * 2 / 64
    assert not torch.equal(one.matrix, drawn(64, seed=1).matrix)


def test_the_moved_picture_is_seen_by_a_sensor():
    ldr = blown()
    seen = drawn().seen(ldr)
    assert seen.min() >= 0 and seen.max() <= 1
    assert torch.all(seen[..., 24:40, 24:40] == 1)  # noise does not bring back what is clipped
    pictures, masks = with_moved(ldr, (ldr < 0.96).float(), drawn(1), 0.96)
    assert pictures.shape == masks.shape == (3, 3, 64, 64)
    assert torch.equal(pictures[:2], ldr) and masks[2, 0, 32, 32] == 0


def test_what_moves_with_its_picture_costs_little_and_a_fixed_pattern_costs_much():
    ldr, movement = blown(), drawn()
    loss = temporal_loss(smooth(ldr), smooth(movement.seen(ldr)), ldr, movement, 0.96, floor=False)
    pattern = 0.3 * (torch.arange(64) % 4 < 2).float()
    fixed = temporal_loss(smooth(ldr) + pattern, smooth(movement.seen(ldr)) + pattern, ldr, movement, 0.96, floor=False)
    assert 0 < loss < 0.1 * fixed


def test_both_sides_learn_and_only_inside_what_is_clipped():
    ldr, movement = blown(), drawn()
    made, moved = (torch.full(ldr.shape, value, requires_grad=True) for value in (1.0, 1.5))
    temporal_loss(made, moved, ldr, movement, 0.96, floor=True).backward()
    assert made.grad is not None and moved.grad is not None
    for gradient in (made.grad, moved.grad):
        assert gradient[..., 24:40, 24:40].abs().min() > 0
        assert gradient[..., :12, :].abs().max() == 0


def test_below_the_floor_nothing_flickers():
    ldr, movement = blown(), drawn()
    low, lower = torch.full(ldr.shape, 0.5), torch.full(ldr.shape, 0.1)
    assert temporal_loss(low, lower, ldr, movement, 0.96, floor=True) < 1e-6  # log 2 is LDR white
