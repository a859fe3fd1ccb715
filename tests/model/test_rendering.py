"""From the network's output to what is written: against eq. 1 in NumPy, and what is told of the picture."""

import numpy as np
import pytest
import torch

from model import codes as codes_module
from model.codes import Codes, as_tensor, display_encoded
from model.exposure import Encoding, clipped_pixels, exposure_mask, linearise
from model.rendering import HALF_MAX, Rendering, Result, render

DEVICES = ["cpu"] + [name for name, there in (("cuda", torch.cuda.is_available()),) if there]
THRESHOLD = 0.96
GREYER = ((0.5, 0.3, 0.2), (0.1, 0.8, 0.1), (0.25, 0.25, 0.5))


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setitem(codes_module._AT_ONCE, "cpu", 200)


def material(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """T with a clipped blob in the lower half, and Y."""
    rng = np.random.default_rng(seed)
    ldr = rng.uniform(0, 0.95, (31, 23, 3)).astype(np.float32)
    ldr[18:26, 4:20] = rng.uniform(0.9, 1, (8, 16, 3))
    return ldr, rng.uniform(0, 4, ldr.shape).astype(np.float32)


def made(ldr, log_hdr, rendering=Rendering(), device="cpu", floor=False, half=False) -> Result:
    there = torch.from_numpy(ldr).to(device)
    log = None if log_hdr is None else torch.from_numpy(log_hdr).to(device)
    return render(there, clipped_pixels(there, THRESHOLD), log, rendering, THRESHOLD, floor, half=half).fetch()


def expected(ldr, log_hdr, rendering=Rendering(), floor=False) -> np.ndarray:
    """Eq. 1 and what comes after it, in double precision."""
    seen = linearise(ldr.astype(np.float64), rendering.encoding.transfer, rendering.encoding.gamma)
    mask, light = exposure_mask(ldr.astype(np.float64), THRESHOLD), np.expm1(log_hdr.astype(np.float64))
    light = seen * (light / seen) ** rendering.strength
    light = np.maximum(light, seen) if floor else light
    light = mask * seen + (1 - mask) * light
    if rendering.matrix is not None:
        light = light @ np.array(rendering.matrix).T
    return light * rendering.gain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize(
    "rendering",
    [
        Rendering(),
        Rendering(Encoding("srgb"), gain=0.25),
        Rendering(Encoding("gamma", 2.4), strength=0.5),
        Rendering(strength=2.0, matrix=GREYER, gain=3.0),
    ],
)
def test_it_is_eq_1_then_matrix_and_gain(device, floor, rendering):
    ldr, log_hdr = material()
    wanted = expected(ldr, log_hdr, rendering, floor)
    np.testing.assert_allclose(made(ldr, log_hdr, rendering, device, floor).pixels, wanted, rtol=2e-5, atol=1e-6)
    half = made(ldr, log_hdr, rendering, device, floor, half=True).pixels
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, wanted, rtol=6e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strength", [0.0, 1.0, 1.7])
def test_what_is_well_exposed_is_the_square_to_the_bit(device, strength):
    ldr, log_hdr = material()
    pixels = made(ldr, log_hdr, Rendering(strength=strength), device).pixels
    exposed = exposure_mask(ldr, THRESHOLD) == 1
    assert 0 < exposed.mean() < 1
    assert np.array_equal(pixels[exposed], (ldr * ldr)[exposed])


def test_no_strength_leaves_the_clip_level():
    ldr, log_hdr = material()
    np.testing.assert_allclose(made(ldr, log_hdr, Rendering(strength=0.0)).pixels, ldr**2, rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_it_tells_extremes_and_counts(device):
    ldr, log_hdr = material()
    log_hdr[20, 6, 1], ldr[20, 6] = 9.9, 1  # 19,929 times white
    found = made(ldr, log_hdr, Rendering(gain=8.0), device, half=True)
    wanted = expected(ldr, log_hdr)
    assert found.peak == pytest.approx(wanted.max(), rel=1e-5) and found.peak < HALF_MAX
    assert found.lowest == pytest.approx(wanted.min(), rel=1e-5)
    assert found.clamped == 1 and found.pixels.max() == HALF_MAX
    assert found.clipped == pytest.approx((exposure_mask(ldr, THRESHOLD) < 1).any(2).mean())
    assert made(ldr, log_hdr, Rendering(gain=8.0), device).pixels.max() > HALF_MAX
    log_hdr[21, 7], ldr[21, 7] = np.nan, 1
    found = made(ldr, log_hdr, device=device)
    assert np.isnan(found.lowest) and np.isnan(found.peak)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 0.96, 245 / 255, 0.999])
def test_clipped_is_where_the_mask_is_below_1(threshold):
    steps = np.concatenate([np.arange(65536) / 65535, threshold + np.arange(-9, 10) * 6e-8]).clip(0, 1)
    ldr = np.zeros((1, len(steps), 3), np.float32)
    ldr[0, :, 1] = steps
    below = exposure_mask(ldr, threshold)[..., 1] < 1
    found = clipped_pixels(torch.from_numpy(ldr), threshold).numpy()
    assert np.array_equal(found[ldr[..., 1] > 1e-7], below[ldr[..., 1] > 1e-7])


@pytest.mark.parametrize("device", DEVICES)
def test_codes_mean_what_their_decoder_said(device):
    rng = np.random.default_rng(2)
    deep = rng.integers(0, 65536, (31, 23, 3), np.uint16)
    affine = np.concatenate([rng.normal(size=(3, 3)) / 65535, rng.normal(size=(3, 1)) / 4], 1)
    planes = np.ascontiguousarray(deep.transpose(2, 0, 1)).transpose(1, 2, 0)
    wanted = np.clip(deep @ affine[:, :3].T + affine[:, 3], 0, 1)
    for values in (deep, planes, deep.astype(">u2"), deep[::-1, ::-1][::-1, ::-1]):
        found = display_encoded(as_tensor(values).to(device), affine).cpu().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        plain = display_encoded(as_tensor(values).to(device)).cpu().numpy()
        np.testing.assert_allclose(plain, deep / 65535, atol=1e-7)
    byte = rng.integers(0, 256, (31, 23, 1), np.uint8)
    byte.flags.writeable = False
    assert np.array_equal(Codes(byte).pixels(), np.repeat(byte.astype(np.float32) / np.float32(255), 3, 2))
    grey = np.array([[2 / 255, -0.1]] * 3)
    np.testing.assert_allclose(Codes(byte, grey).pixels()[..., :1], np.clip(byte * grey[0, 0] - 0.1, 0, 1), atol=1e-6)
