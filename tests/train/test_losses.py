"""Equations 6 to 12 against values computed by hand."""

import math

import pytest
import torch

from train.losses import chroma_loss, composite, gram, mu_law, reconstruction_loss, rms_loss, style_loss, vgg_loss


def picture(value: float) -> torch.Tensor:
    return torch.full((1, 3, 2, 2), value)


def test_mu_law_takes_0_to_0_and_1_to_1():
    assert mu_law(torch.tensor([0.0, 0.1, 1.0])).tolist() == pytest.approx([0, math.log(51) / math.log(501), 1])


def test_reconstruction_counts_only_what_is_clipped():
    mask = picture(1.0)
    mask[..., 0, 0] = 0.5  # one pixel of four, by half: |log 5 − log 3| · 0.5 / 4
    loss = reconstruction_loss(picture(math.log(5)), picture(2.0), mask)
    assert float(loss) == pytest.approx(math.log(5 / 3) * 0.5 / 4, rel=1e-5)


def test_every_picture_counts_alike_in_the_rms_however_much_of_it_is_clipped():
    little, much = picture(1.0), picture(0.0)
    little[..., 0, 0] = 0.0  # a pixel of four
    error = math.log(5 / 3)
    loss = rms_loss(picture(math.log(5)).repeat(2, 1, 1, 1), picture(2.0), torch.cat((little, much)))
    by_hand = [math.sqrt(error**2 * share / (share + 0.005) + 0.02**2) for share in (0.25, 1)]
    assert float(loss) == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_the_floor_forgives_what_it_lifts_and_still_pulls_upwards():
    sunk = picture(0.1).requires_grad_()
    floor = picture(math.log(2))
    at_the_floor = reconstruction_loss(sunk, picture(1.0), picture(0.0), floor)
    assert float(at_the_floor) == pytest.approx(0, abs=1e-6)
    reconstruction_loss(sunk, picture(3.0), picture(0.0), floor).backward()
    assert sunk.grad is not None and (sunk.grad < 0).all()


def test_composite_is_the_truth_where_exposed_and_exp_y_minus_1_where_not():
    mixed = composite(picture(math.log(4)), picture(9.0), picture(0.25))
    assert torch.allclose(mixed, picture(0.25 * 9 + 0.75 * 3))


def test_gram_of_two_channels_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # C = 2, H·W = 2: divided by 4
    assert torch.allclose(gram(features), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_vgg_and_style_add_up_over_layers():
    ours, theirs = [torch.ones(1, 2, 1, 2), torch.zeros(1, 1, 1, 1)], [torch.zeros(1, 2, 1, 2), torch.ones(1, 1, 1, 1)]
    assert float(vgg_loss(ours, theirs)) == 2
    assert float(style_loss(ours, theirs)) == pytest.approx(0.5 + 1)  # every entry of the first Gram is 2/4


def test_chroma_is_blind_to_brightness_and_sees_colour():
    red = picture(1.0)
    red[:, 0] = 4.0
    assert float(chroma_loss(picture(8.0), picture(2.0), picture(0.0))) == pytest.approx(0, abs=1e-4)
    assert float(chroma_loss(red, picture(2.0), picture(0.0))) > 0.1


def test_a_crop_is_the_window_that_holds_most_of_what_is_clipped(device):
    from train.losses import _crop, crop_corners

    mask = torch.ones(2, 3, 32, 40, device=device)
    mask[0, :, 16:24, 24:32] = 0
    mask[1, :, 2:8, 0:6] = 0
    picture = torch.arange(2 * 3 * 32 * 40.0, device=device).view(2, 3, 32, 40).requires_grad_()
    corners = crop_corners(mask, 8)
    assert [corner.tolist() for corner in corners] == [[16, 0], [24, 0]]
    window = _crop(picture, corners, 8)
    for number, (top, left) in enumerate(zip(*(corner.tolist() for corner in corners), strict=True)):
        assert torch.equal(window[number], picture[number, :, top : top + 8, left : left + 8])
    window.sum().backward()
    assert picture.grad is not None and picture.grad.sum() == 2 * 3 * 64
