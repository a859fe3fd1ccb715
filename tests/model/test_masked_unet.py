"""The network against eq. 2-4 written out in loops, its mask filters, and how far it sees."""

import itertools

import numpy as np
import pytest
import torch

from model.masked_unet import GatedConv, MaskedConv, MaskedUNet, NetworkConfig, initialise, receptive_radius

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def build(seed=3, **settings):
    return initialise(MaskedUNet(NetworkConfig(**{"base_channels": 4, "depth": 3, **settings})), seed).eval()


def picture(height, width, seed=0, batch=1):
    """A random picture and a mask with ones, zeros and values between."""
    numbers = np.random.default_rng(seed)
    ldr = numbers.random((batch, 3, height, width), np.float32)
    mask = np.clip(numbers.random((batch, 3, height, width), np.float32) * 2 - 0.5, 0, 1)
    return torch.from_numpy(ldr), torch.from_numpy(mask)


def slow_conv(x, weight, bias=None, stride=1):
    """Correlation of C×H×W with O×C×k×k, zeros around, one output value at a time."""
    outputs, _, kernel, _ = weight.shape
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height = (x.shape[1] + 2 * pad - kernel) // stride + 1
    width = (x.shape[2] + 2 * pad - kernel) // stride + 1
    result = np.zeros((outputs, height, width))
    for o, i, j in itertools.product(range(outputs), range(height), range(width)):
        seen = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        result[o, i, j] = (seen * weight[o]).sum() + (0 if bias is None else bias[o])
    return result


def slow_update(mask, weight, stride=1):
    """Eq. 4."""
    filters = np.zeros_like(weight)
    for o in range(len(weight)):
        filters[o] = np.abs(weight[o]) / (np.abs(weight[o]).sum() + 1e-6)
    return slow_conv(mask, filters, None, stride)


def slow_upsample(x):
    result = np.zeros((x.shape[0], 2 * x.shape[1], 2 * x.shape[2]))
    for i, j in itertools.product(range(result.shape[1]), range(result.shape[2])):
        result[:, i, j] = x[:, i // 2, j // 2]
    return result


def slow_activation(x, kind):
    return np.where(x > 0, x, 0.2 * x if kind == "leaky_relu" else 0)


def slow_layer(x, weights, config, stride=1):
    out = slow_conv(x, weights["conv.weight"], weights.get("conv.bias"), stride)
    if config.masking == "gated":
        gate = slow_conv(x, weights["gate.weight"], weights["gate.bias"], stride)
        out = out / (1 + np.exp(-gate))
    return out


def slow_network(net, ldr, mask):
    """The forward pass of one picture in float64."""
    config = net.config
    layers = {}
    for name, tensor in net.state_dict().items():
        side, level, rest = name.split(".", 2)
        layers.setdefault((side, int(level)), {})[rest] = tensor.double().numpy()
    x = (ldr.double().numpy() - MEAN) / STD
    m = mask.double().numpy()
    if config.masking == "input":
        x = x * m
    if config.masking != "feature":
        m = np.ones_like(m)
    features, masks = [x], [m]
    for level in range(config.depth):
        weights = layers["encoder", level]
        x = slow_activation(slow_layer(x * m, weights, config, 2), config.encoder_activation)
        m = slow_update(m, weights["conv.weight"], 2) if config.masking == "feature" else np.ones_like(x)
        features.append(x)
        masks.append(m)
    for level in reversed(range(config.depth)):
        weights = layers["decoder", level]
        skip, skip_mask = features[level], masks[level]
        if config.skip_mask == "ones":
            skip_mask = np.ones_like(skip)
        joined = np.concatenate((slow_upsample(x), skip))
        m = np.concatenate((slow_upsample(m), skip_mask))
        if config.masking != "feature":
            m = np.ones_like(joined)
        x = slow_layer(joined * m, weights, config)
        if level:
            x = slow_activation(x, config.decoder_activation)
        m = slow_update(m, weights["conv.weight"]) if config.masking == "feature" else np.ones_like(x)
    return x


@pytest.mark.parametrize(
    ("masking", "skip_mask", "encoder", "decoder"),
    [
        *itertools.product(["feature"], ["ones", "encoder"], ["relu", "leaky_relu"], ["relu", "leaky_relu"]),
        ("input", "ones", "leaky_relu", "relu"),
        ("gated", "ones", "leaky_relu", "relu"),
        ("gated", "encoder", "relu", "leaky_relu"),
        ("none", "ones", "relu", "leaky_relu"),
    ],
)
def test_the_network_is_the_paper_written_out_in_loops(masking, skip_mask, encoder, decoder):
    net = build(masking=masking, skip_mask=skip_mask, encoder_activation=encoder, decoder_activation=decoder, depth=2)
    torch.nn.init.uniform_(net.decoder[0].conv.bias, -1, 1, generator=torch.Generator().manual_seed(1))
    ldr, mask = picture(8, 12)
    with torch.no_grad():
        fast = net(ldr, mask)[0].numpy()
    slow = slow_network(net, ldr[0], mask[0])
    assert np.abs(slow).max() > 0.1
    np.testing.assert_allclose(fast, slow, atol=1e-5, rtol=1e-4)


def test_three_kernel_sizes_and_a_batch():
    net = build(depth=4, base_channels=2)
    ldr, mask = picture(16, 32, batch=2)
    with torch.no_grad():
        fast = net(ldr, mask).numpy()
    for one in range(2):
        np.testing.assert_allclose(fast[one], slow_network(net, ldr[one], mask[one]), atol=1e-5, rtol=1e-4)


def test_the_papers_sizes():
    config = NetworkConfig()
    with torch.device("meta"):
        net = MaskedUNet(config)
    assert sum(p.numel() for p in net.parameters()) == 25_770_964
    assert config.channels() == [3, 64, 128, 256, 512, 512, 512, 512]
    assert config.kernels() == [7, 5, 5, 3, 3, 3, 3]
    assert config.multiple == 128
    assert receptive_radius(config) == 135 + 2 * 127  # kernels down; up, and where a pixel lies on the grid of 128
    biases = [name for name, _ in net.named_parameters() if name.endswith("bias")]
    assert biases == ["decoder.0.conv.bias"]


def test_gated_layer_by_its_formula():
    layer = GatedConv(2, 3, 3, 1, bias=True)
    x, skip = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 5, 5)
    weights = {name: tensor.double().numpy() for name, tensor in layer.state_dict().items()}
    joined = np.concatenate((x[0].double().numpy(), skip[0].double().numpy()))
    gate = slow_conv(joined, weights["gate.weight"], weights["gate.bias"])
    want = slow_conv(joined, weights["conv.weight"], weights["conv.bias"]) / (1 + np.exp(-gate))
    np.testing.assert_allclose(layer(x, None, skip)[0].detach().numpy(), want, atol=1e-5)


def test_what_is_masked_out_cannot_matter():
    net = build()
    ldr, mask = picture(16, 16)
    mask[..., 4:9, 3:11] = 0
    other = ldr.clone()
    other[..., 4:9, 3:11] = torch.rand(1, 3, 5, 8)
    encoder_masks = build(skip_mask="encoder")
    with torch.no_grad():
        assert torch.equal(encoder_masks(ldr, mask), encoder_masks(other, mask))
        assert not torch.equal(net(ldr, mask), net(other, mask))  # skip masks of ones let the picture itself through


def test_updated_masks_stay_between_zero_and_one():
    layer = MaskedConv(3, 5, 5, 2, bias=False).eval()
    assert float(layer.update(torch.zeros(1, 3, 8, 8)).max()) == 0
    inner = layer.update(torch.ones(1, 3, 32, 32))[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.ones_like(inner))
    _, mask = picture(32, 32)
    updated = layer.update(mask)
    assert float(updated.min()) >= 0 and float(updated.max()) <= 1 + 1e-6


def test_a_skip_mask_of_one_channel_stands_for_all():
    layer = MaskedConv(7, 4, 3, 1, bias=False).eval()
    mask, skip = torch.rand(1, 3, 6, 6), torch.rand(1, 1, 6, 6)
    torch.testing.assert_close(layer.update(mask, skip), layer.update(mask, skip.expand(1, 4, 6, 6)))


def filters_of(layer):
    weight = layer.conv.weight.detach().double()
    return weight.abs() / (weight.abs().sum((1, 2, 3), keepdim=True) + 1e-6)


def test_mask_filters_follow_the_weights():
    layer = MaskedConv(3, 4, 3, 1, bias=False).eval()
    first = layer.mask_filter()
    assert layer.mask_filter() is first  # made once
    with torch.no_grad():
        layer.conv.weight[0, 0, 0, 0] += 1
    torch.testing.assert_close(layer.mask_filter().double(), filters_of(layer), atol=1e-6, rtol=1e-6)
    layer.load_state_dict({"conv.weight": torch.randn(4, 3, 3, 3)})
    torch.testing.assert_close(layer.mask_filter().double(), filters_of(layer), atol=1e-6, rtol=1e-6)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.rand(1, 3, 4, 4), None).sum().backward()
    optimiser.step()
    torch.testing.assert_close(layer.mask_filter().double(), filters_of(layer), atol=1e-6, rtol=1e-6)


def test_mask_filters_follow_the_type():
    layer = MaskedConv(3, 4, 3, 1, bias=False).eval()
    layer.mask_filter()
    layer.bfloat16()
    assert layer.mask_filter().dtype == torch.bfloat16
    torch.testing.assert_close(layer.mask_filter().double(), filters_of(layer), atol=1e-3, rtol=1e-2)
    layer.double()
    assert layer.mask_filter().dtype == torch.float64


def test_masks_carry_no_gradient():
    layer = MaskedConv(3, 4, 3, 2, bias=False)
    assert layer.conv.weight.requires_grad
    assert not layer.update(torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad


def test_gradients_are_those_of_constant_masks():
    """With the mask detached, dY/dW of the first layer is a plain convolution's gradient on the masked picture."""
    net = build(depth=1, encoder_activation="leaky_relu").train()
    ldr, mask = picture(4, 4)
    net(ldr, mask).sum().backward()
    first, last = net.encoder[0].conv, net.decoder[0].conv
    weight = first.weight.detach().clone().requires_grad_()
    image = (ldr - net.mean) / net.std
    x = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(image * mask, weight, None, 2, 3), 0.2)
    constant = net.encoder[0].update(mask)
    up = torch.nn.functional.interpolate(x * constant, scale_factor=2)
    torch.nn.functional.conv2d(torch.cat((up, image), 1), last.weight.detach(), None, 1, 1).sum().backward()
    torch.testing.assert_close(first.weight.grad, weight.grad)


def test_training_goes_on_after_inference():
    net = build()
    ldr, mask = picture(8, 8)
    with torch.inference_mode():
        net(ldr, mask)
    net.train()
    net(ldr, mask).mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    "settings", [{}, {"depth": 2}, {"depth": 4}, {"masking": "none", "encoder_activation": "relu"}]
)
def test_nothing_beyond_the_receptive_radius_is_seen(settings):
    net = build(**settings)
    reach = receptive_radius(net.config)
    side = -(-(2 * reach + 32) // 16) * 16
    ldr, mask = picture(side, side)
    for centre in (side // 2, side // 2 + 1, side // 2 - 1, side // 2 + 5):
        other, other_mask = picture(side, side, seed=1)
        inside = slice(centre - reach, centre + reach + 1)
        other[..., inside, inside], other_mask[..., inside, inside] = (
            ldr[..., inside, inside],
            mask[..., inside, inside],
        )
        with torch.no_grad():
            a, b = net(ldr, mask), net(other, other_mask)
        torch.testing.assert_close(a[..., centre, centre], b[..., centre, centre], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(a, b, atol=1e-3)


def test_wrong_sizes_are_refused():
    net = build()
    ldr, mask = picture(8, 8)
    for bad, its_mask in (
        (ldr[..., :7], mask[..., :7]),
        (ldr[:, :2], mask[:, :2]),
        (ldr, mask[:, :1]),
        (ldr[0], mask[0]),
    ):
        with pytest.raises(ValueError, match=r"expected|multiples of 8"):
            net(bad, its_mask)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_channels": 0},
        {"base_channels": 10**9},
        {"base_channels": 4.0},
        {"depth": 0},
        {"depth": 11},
        {"masking": "partial"},
        {"mask_threshold": 1.0},
        {"mask_threshold": float("nan")},
        {"encoder_activation": "gelu"},
        {"decoder_activation": "none"},
        {"skip_mask": "zeros"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        NetworkConfig(**settings)


def test_the_same_seed_gives_the_same_weights():
    one, two, other = build(seed=1).state_dict(), build(seed=1).state_dict(), build(seed=2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["encoder.0.conv.weight"], other["encoder.0.conv.weight"])
