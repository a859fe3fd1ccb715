"""Running only where it matters gives what running everywhere gives."""

import pytest
import torch

from model import MaskedUNet, NetworkConfig, exposure_mask, selective
from model.masked_unet import initialise
from model.selective import fold, reconstruct_where


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks small enough that small pictures have many, whole and cut."""
    monkeypatch.setattr(selective, "BLOCK", 16)


def pictures(height: int = 96, width: int = 136, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ldr = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return ldr, exposure_mask(ldr, 0.7)


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("skip_mask", ["ones", "encoder"])
@pytest.mark.parametrize("masking", ["feature", "input", "gated", "none"])
def test_it_equals_the_whole_pass_where_it_is_needed(masking, skip_mask, folds):
    config = NetworkConfig(base_channels=4, depth=3, masking=masking, skip_mask=skip_mask)
    net = initialise(MaskedUNet(config), seed=0).eval()
    ldr, mask = pictures()
    needed = torch.zeros(2, 96, 136, dtype=torch.bool)
    needed[0, 5:30, 100:136] = True  # a blob at an edge
    needed[1, 40, 3] = needed[1, 95, 135] = True  # two lonely pixels, one of them the last
    with torch.inference_mode():
        folded = fold(net, ldr.device, ldr.dtype) if folds else None
        whole, part = net(ldr, mask), reconstruct_where(net, ldr, mask, needed, folded)
    where = needed[:, None].expand_as(whole)
    assert torch.allclose(whole[where], part[where], atol=1e-5)
    assert whole[where].abs().max() > 0.1  # there was something to compare


def test_everything_needed_is_the_whole_pass():
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=4)), seed=1).eval()
    ldr, mask = pictures(112, 80)
    with torch.inference_mode():
        whole = net(ldr, mask)
        part = reconstruct_where(
            net, ldr, mask, torch.ones(2, 112, 80, dtype=torch.bool), fold(net, ldr.device, ldr.dtype)
        )
    assert torch.allclose(whole, part, atol=1e-5)


def test_levels_without_need_are_not_run(monkeypatch):
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=0).eval()
    seen = []
    decode_level = net.decode_level

    def counted(level, x, *rest):
        seen.append((level, x.shape[0] * x.shape[2] * x.shape[3]))
        return decode_level(level, x, *rest)

    monkeypatch.setattr(net, "decode_level", counted)
    ldr, mask = pictures(256, 256)
    needed = torch.zeros(2, 256, 256, dtype=torch.bool)
    needed[0, 8, 8] = True
    with torch.inference_mode():
        reconstruct_where(net, ldr, mask, needed)
    assert sum(pixels for level, pixels in seen if level == 0) == (selective.BLOCK // 2 + selective.RIM) ** 2


@pytest.mark.parametrize("where", ["nothing", "a pixel", "corners", "a blob", "all"])
@pytest.mark.parametrize("size", [(256, 512), (128, 128), (384, 128)])
def test_masks_of_the_encoder_are_those_of_eq_4(where, size):
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=7)), seed=2).eval()
    mask = torch.ones(2, 3, *size)
    spots = {"nothing": [], "a pixel": [(70, 71)], "corners": [(0, 0), (size[0] - 1, size[1] - 1)], "all": []}
    for row, column in spots.get(where, [(r, c) for r in range(20, 90) for c in range(30, 99)]):
        mask[1, :, row, column] = torch.tensor([0.0, 0.5, 1.0])
    if where == "all":
        mask = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pairs = zip(net.encoder_masks(mask), selective.encoder_masks(net, mask), strict=True)
        for whole, sparse in pairs:
            assert torch.allclose(whole, sparse, atol=1e-6)
