"""Temporal stability as a term of the loss: a picture that is moved a little must give the moved result.

Single-frame regularisation of Eilertsen, Mantiuk and Unger, "Single-frame Regularization for Temporally Stable CNNs"
(CVPR 2019): the transform-invariance formulation ‖f(T(x)) − T(f(x))‖ of its section 3, with gradients through both
sides, since either result may be the better one. Here it is the L1 norm in the log domain, inside clipped areas, of a
part of each batch, so that it costs a part of a forward pass.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.exposure import exposure_mask
from train.camera import standard_noise
from train.losses import floor_of
from train.views import sent

SHIFT, TURN, ZOOM, NOISE = 2.0, 1.0, 0.02, 0.01
"""At most: pixels, degrees, relative; standard deviation of display values."""


@dataclass(frozen=True)
class Movement:
    """Small movements of n pictures. matrix: (n, 2, 3), as `affine_grid` takes it. noise: (n,), seed of its values."""

    matrix: Tensor
    noise: Tensor
    seed: int

    @classmethod
    def drawn(cls, rng: np.random.Generator, count: int, size: int) -> "Movement":
        """`count` random movements of pictures of `size`×`size` pixels."""
        turn = np.radians(rng.uniform(-TURN, TURN, count))
        zoom = rng.uniform(1 - ZOOM, 1 + ZOOM, count)
        shift = rng.uniform(-SHIFT, SHIFT, (count, 2)) * 2 / size
        cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
        matrix = np.stack([np.stack([cosine, -sine, shift[:, 0]], 1), np.stack([sine, cosine, shift[:, 1]], 1)], 1)
        noise = rng.uniform(0, NOISE, count)
        return cls(torch.tensor(matrix).float(), torch.tensor(noise).float(), int(rng.integers(2**31)))

    def moved(self, pictures: Tensor) -> Tensor:
        """(n, C, H, W), bilinear; 0 where a pixel comes from outside."""
        grid = F.affine_grid(sent(self.matrix, pictures.device), list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def seen(self, ldr: Tensor) -> Tensor:
        """The moved, noisy picture in [0, 1]; what is at the clip level stays there, as on a sensor."""
        moved = self.moved(ldr)
        keys = ((self.seed + 7919 * np.arange(len(moved))) % 2**31).astype(np.int32)
        values = standard_noise(keys, moved.shape, moved.device).to(moved)
        noisy = moved + values * sent(self.noise, moved.device).to(moved).view(-1, 1, 1, 1)
        return torch.where(moved > 0.999, torch.ones_like(moved), noisy.clamp(0, 1))


def with_moved(ldr: Tensor, mask: Tensor, movement: Movement, threshold: float) -> tuple[Tensor, Tensor]:
    """The batch, followed by moved copies of its first pictures, so that one pass computes both."""
    moved = movement.seen(ldr[: len(movement.noise)])
    return torch.cat((ldr, moved)), torch.cat((mask, exposure_mask(moved, threshold)))


def temporal_loss(
    log_hdr: Tensor, of_moved: Tensor, ldr: Tensor, movement: Movement, threshold: float, floor: bool
) -> Tensor:
    """Mean over values of |Y(T(x)) − T(Y(x))|, where it is clipped before and after.

    log_hdr, of_moved: Y of the first pictures and of their moved copies, (n, 3, H, W). ldr: the first
    pictures, in [0, 1].
    """
    if floor:
        log_hdr = torch.maximum(log_hdr, floor_of(ldr))
        of_moved = torch.maximum(of_moved, floor_of(movement.seen(ldr)))
    there = movement.moved((exposure_mask(ldr, threshold) == 0).float())
    here = exposure_mask(movement.seen(ldr), threshold) == 0
    both = (there > 0.999) & here
    return (both * (of_moved - movement.moved(log_hdr)).abs()).mean()
