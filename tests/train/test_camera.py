"""The batched camera against what it stands for: OpenCV's remapping and JPEG, numpy's quantiles, the formulas."""

import math

import cv2
import numpy as np
import pytest
import torch

from train.camera import (
    CameraConfig,
    Exposure,
    Shot,
    camera_curve,
    colour_matrix,
    expose,
    midtone_scale,
    photograph,
    sharpened,
    standard_noise,
)
from train.jpeg import jpeg
from train.views import crops, flat, focal_length, panorama, reduced, rotation, to_tensor, views


def soft_noise(height: int, width: int, seed: int = 0, blur: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    return smooth / smooth.std()


def remapped(scene: np.ndarray, yaw: float, pitch: float, roll: float, fov: float, size: int) -> np.ndarray:
    """The same view, pixel by pixel from four neighbours: before OpenCV 5 `cv2.remap` rounds to 32nds of a pixel."""
    focal = focal_length(size, fov)
    scene = reduced(scene, focal)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    x, y = (columns + 0.5 - size / 2) / focal, (size / 2 - rows - 0.5) / focal
    directions = np.stack([x, y, np.ones_like(x)], -1) @ rotation(yaw, pitch, roll).T
    longitude = np.arctan2(directions[..., 0], directions[..., 2])
    latitude = np.arctan2(directions[..., 1], np.hypot(directions[..., 0], directions[..., 2]))
    high, wide = scene.shape[:2]
    u = ((longitude / (2 * math.pi) + 0.5) * wide - 0.5) % wide
    v = np.clip((0.5 - latitude / math.pi) * high - 0.5, 0, high - 1)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    right, bottom = (left + 1) % wide, np.minimum(top + 1, high - 1)  # past the last column comes the first
    across, down = (u - left)[..., None], (v - top)[..., None]
    upper = scene[top, left % wide] * (1 - across) + scene[top, right] * across
    lower = scene[bottom, left % wide] * (1 - across) + scene[bottom, right] * across
    return np.float32(upper * (1 - down) + lower * down)


def test_views_are_right_to_a_thousandth_of_a_stop(device):
    scenes = [np.exp(soft_noise(128, 256, seed)) for seed in range(2)]
    kept = [panorama(scene, focal_length(64, 50), focal_length(64, 140)).to(device) for scene in scenes]
    assert len(kept[0].levels) > 1  # the widest views are taken from a reduced level
    yaw, pitch, roll = np.array([170.0, -60, 10]), np.array([20.0, -55, 80]), np.array([5.0, -10, 0])
    fov, mirrored = np.array([60.0, 100, 140]), np.array([False, True, False])
    pictures = [kept[0], kept[1], kept[0]]
    seen = views(pictures, rotation(yaw, pitch, roll), focal_length(64, fov), mirrored, (64, 64), device).cpu()
    for number, scene in enumerate((scenes[0], scenes[1], scenes[0])):
        wanted = remapped(scene, yaw[number], pitch[number], roll[number], fov[number], 64)
        wanted = to_tensor(wanted[:, ::-1] if mirrored[number] else wanted).log2()
        off = seen[number].log2() - wanted
        off = (off - off.median()).abs()  # kept on another scale
        assert off.mean() < 1e-3 and off.max() < 5e-2, number


def test_crops_are_those_of_opencv(device):
    picture = np.exp(0.5 * soft_noise(60, 90, blur=4)).astype(np.float32)
    kept = flat(picture, 60, linear=False).to(device)
    none, place = np.array([False]), np.array([[0.5, 0.25]])
    one = crops([kept], np.array([0.5]), place, none, 30, device).cpu()
    assert torch.allclose(one[0], to_tensor(picture)[:, 15:45, 15:45], rtol=1e-3)
    enlarged = crops([kept], np.array([1.0]), place, none, 90, device).cpu()
    wanted = cv2.resize(picture[:, 7:67], (90, 90), interpolation=cv2.INTER_LINEAR)
    assert torch.allclose(enlarged[0], to_tensor(wanted), rtol=2e-3)
    reduced_, mirrored = (crops([kept], np.array([0.75]), place, np.array([way]), 30, device) for way in (False, True))
    assert torch.equal(reduced_.flip(3), mirrored)
    wanted = cv2.resize(picture[8:53, 11:56], (30, 30), interpolation=cv2.INTER_AREA)
    assert (reduced_.cpu()[0].log2() - to_tensor(wanted).log2()).abs().mean() < 0.02  # a triangle for a box


@pytest.mark.parametrize("size", [(128, 160), (121, 150)])
def test_jpeg_is_that_of_opencv_to_under_one_code(device, size):
    light, colour = 40 * soft_noise(*size)[..., :1], 10 * soft_noise(*size, seed=1, blur=4)
    picture = np.clip(128 + light + colour, 0, 255).astype(np.uint8)
    qualities = np.array([20, 60, 80, 98])
    ours = jpeg(to_tensor(picture).float().repeat(4, 1, 1, 1).to(device), qualities).cpu()
    assert torch.equal(ours, ours.round()) and ours.min() >= 0 and ours.max() <= 255
    for made, quality in zip(ours, qualities, strict=True):
        data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        wanted = to_tensor(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]).float()
        assert (made - wanted).abs().mean() < 1
        assert quality > 90 or (made - wanted).abs().mean() < 0.7 * (to_tensor(picture).float() - wanted).abs().mean()


def test_exposure_is_a_quantile_of_the_brightest_channel(device):
    hdr = np.exp(2 * np.random.default_rng(0).normal(0, 1, (3, 40, 40, 3))).astype(np.float32)
    batch = torch.stack([to_tensor(one) for one in hdr]).to(device)
    shares = np.array([0.05, 0.15, 0.4])
    wanted = [1 / np.quantile(one.max(2), 1 - share) for one, share in zip(hdr, shares, strict=True)]
    assert expose(batch, shares).tolist() == pytest.approx(wanted, rel=1e-5)
    mild = Exposure(np.array([True, False, True]), shares, np.array([1.0, 9, -2])).factors(batch)
    wanted = [2 / np.quantile(hdr[0].max(2), 0.995), wanted[1], 0.25 / np.quantile(hdr[2].max(2), 0.995)]
    assert mild.tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_photograph_is_the_formulas(device):
    """Colour, exposure, curve and rounding of a batch, pixel by pixel; without noise and JPEG."""
    hdr = np.exp(np.random.default_rng(1).normal(0, 1, (2, 24, 24, 3)))
    shot = Shot(
        hue=np.array([12.0, -5]), saturation=np.array([0.8, 1.1]), n=np.array([0.9, 1.05]), sigma=np.array([0.6, 0.5]),
        noise=np.zeros(2), key=np.array([1, 2], np.int32), quality=np.zeros(2),
    )  # fmt: skip
    factor = np.array([0.4, 1.3])
    batch = torch.stack([to_tensor(np.float32(one)) for one in hdr]).to(device)
    ldr, truth = photograph(batch, torch.tensor(factor).float().to(device), shot, CameraConfig())
    for i in range(2):
        light = np.maximum(hdr[i] @ colour_matrix(shot.hue, shot.saturation)[i].T, 0) * factor[i]
        code = np.rint(255 * camera_curve(np.minimum(light, 1), shot.n[i], shot.sigma[i]))
        assert (ldr[i].cpu().permute(1, 2, 0).numpy() * 255 - code).__abs__().max() <= 1  # at a boundary of rounding
        assert np.mean(np.rint(ldr[i].cpu().permute(1, 2, 0).numpy() * 255) != code) < 1e-3
        wanted = light * midtone_scale(shot.n[i], shot.sigma[i])
        assert np.allclose(truth[i].cpu().permute(1, 2, 0).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_hue_turns_about_grey_and_saturation_keeps_the_luminance():
    turned = colour_matrix(np.array([120.0, 0]), np.array([1.0, 0.0]))
    assert np.allclose(turned[0] @ [1, 0, 0], [0, 1, 0]) and np.allclose(turned[0] @ [3, 3, 3], 3)
    assert np.allclose(turned[1] @ [1, 0, 0], 0.2126)


def test_noise_is_normal_and_follows_from_its_key_alone(device):
    keys = np.array([5, 123456789, 2**31 - 1], np.int32)
    noise = standard_noise(keys, torch.Size((3, 3, 64, 65)), device)
    again = standard_noise(keys[1:2], torch.Size((1, 3, 64, 65)), torch.device("cpu"))
    assert torch.allclose(noise[1].cpu(), again[0], atol=1e-5)
    values = noise.double().cpu()
    assert values.mean().abs() < 0.01 and values.std() == pytest.approx(1, abs=0.01)
    assert (values**4).mean() == pytest.approx(3, abs=0.15)
    assert (values[..., 1:] * values[..., :-1]).mean().abs() < 0.02 and (values[0] * values[1]).mean().abs() < 0.03


def test_sharpening_enlarges_differences_and_leaves_what_is_even_and_what_is_not_asked_for(device):
    hdr = torch.stack([to_tensor(np.exp(soft_noise(32, 32, seed))) for seed in range(2)]).to(device)
    sharp = sharpened(hdr, np.array([0.0, 1.0]))
    assert torch.equal(sharp[0], hdr[0]) and (sharp > 0).all()
    rough, before = (one[1].log().diff(dim=2).abs().mean() for one in (sharp, hdr))
    assert rough > 1.2 * before
    even = torch.full((1, 3, 16, 16), 7.0, device=device)
    assert torch.allclose(sharpened(even, np.ones(1)), even, rtol=1e-5)
