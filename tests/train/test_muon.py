"""Muon's step against a singular value decomposition, and its Adam against PyTorch's."""

import pytest
import torch

from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_orthogonal_keeps_the_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(0)
    left, sizes, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.linspace(1, 0.1, len(sizes))  # a tenth as small is still brought up
    turned = orthogonal(1e-3 * left @ torch.diag(sizes) @ right)
    seen = left.T @ turned @ right.T
    assert torch.allclose(seen - torch.diag(seen.diagonal()), torch.zeros_like(seen), atol=0.05)
    assert seen.diagonal().min() > 0.6
    assert seen.diagonal().max() < 1.3


def test_a_hidden_layer_moves_as_far_as_under_adam_and_the_last_as_under_adam():
    config = NetworkConfig(base_channels=8, depth=2)
    ours, theirs = (initialise(MaskedUNet(config), 0) for _ in range(2))
    muon, adam = Muon(ours, 0.01, (0.9, 0.999)), torch.optim.Adam(theirs.parameters(), 0.01)
    before = {name: weight.detach().clone() for name, weight in ours.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.grad = torch.randn(mine.shape, generator=generator)
        other.grad = mine.grad.clone()
    muon.step()
    adam.step()
    for name, weight in ours.named_parameters():
        if name.startswith("decoder.0"):
            assert torch.allclose(weight, theirs.get_parameter(name), atol=1e-6)
        else:
            moved = float((weight - before[name]).square().mean().sqrt())
            assert 0.2 * 0.01 * 0.6 < moved < 0.2 * 0.01 * 1.2
