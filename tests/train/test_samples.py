"""Samples: a function of the seed and the number alone, wherever and with whatever else they are made."""

import numpy as np
import pytest
import torch

from train import scenes
from train.camera import CameraConfig
from train.samples import HDRDataset, InpaintingDataset
from train.scenes import Pictures
from train.views import Picture, flat, focal_length, panorama


def picture(index: int) -> Picture:
    """A panorama, or a flat picture where the number is odd."""
    scene = np.exp(1.5 * np.random.default_rng(index).normal(0, 1, (40, 80, 3))).astype(np.float32)
    return flat(scene, 64) if index % 2 else panorama(scene, focal_length(32, 50), focal_length(32, 140))


def photo(index: int) -> Picture:
    return flat(np.random.default_rng(index).random((50, 70, 3), np.float32), 64, linear=False)


def hdr_set(**how) -> HDRDataset:
    return HDRDataset(Pictures(picture, 4), 32, 3, CameraConfig(mild_probability=0.4, mild_low=-2), **how)


def sets() -> list:
    mixed = hdr_set(photos=Pictures(picture, 2), photo_share=0.5)
    return [hdr_set(), hdr_set(sampling=False), hdr_set(tries=1), mixed, InpaintingDataset(Pictures(photo, 3), 32, 3)]


@pytest.mark.parametrize("number", range(5))
def test_a_sample_does_not_depend_on_what_it_is_made_with(number, device):
    data = sets()[number]
    assert data.hold(device)
    together = data.batch([5, 1 << 40, 7, 6], device)
    others = data.batch([6, 8], device)
    alone = data.batch([6], device)
    on_cpu = sets()[number][6]
    for name, values in together.items():
        assert values.shape == (4, 3, 32, 32) and values.dtype == torch.float32 and values.device.type == device.type
        if device.type == "cpu":  # to the bit
            assert torch.equal(values[3], alone[name][0]) and torch.equal(values[3], others[name][0])
            assert torch.equal(values[3], on_cpu[name])
        else:  # to float rounding, after which a code may be rounded the other way
            for other in (alone[name][0], others[name][0], on_cpu[name].to(device)):
                far = (values[3] - other).abs() > 1e-3 * (1 + other.abs())
                assert far.float().mean() < 0.01
        assert not torch.equal(values[0], values[1])


def test_samples_made_all_at_once_are_those_made_one_by_one(monkeypatch):
    """What a GPU does, on the CPU: no sample of a batch leaves the others when it has found its patch."""
    data = hdr_set()
    numbers = list(range(12))
    apart = data.batch(numbers)
    together = data._made(numbers, torch.device("cpu"))
    for name, values in apart.items():
        assert (values - together[name]).abs().gt(1e-3 * (1 + values.abs())).float().mean() < 1e-3, name


def test_pictures_that_are_held_are_loaded_once_and_those_that_do_not_fit_are_not_held(monkeypatch):
    loaded: list[int] = []

    def load(index: int) -> Picture:
        loaded.append(index)
        return picture(index)

    held = Pictures(load, 4)
    assert held.hold(torch.device("cpu")) and held.hold(torch.device("cpu"))
    for index in (3, 0, 3, 1, 2):
        assert held[index].levels[0].dtype == torch.float16
    assert loaded == [0, 1, 2, 3]
    monkeypatch.setattr(scenes, "memory_to_hold", lambda: 2 * picture(0).nbytes)
    small = Pictures(picture, 4, memory=1)
    assert not small.hold(torch.device("cpu"))
    assert torch.equal(small[3].levels[0], picture(3).levels[0])
    known = Pictures(load, 2, known={0: picture(0), 1: picture(1)})
    assert known.hold(torch.device("cpu")) and len(loaded) == 4


def test_a_scene_with_a_sun_keeps_its_range_in_half_precision():
    scene = np.full((32, 64, 3), 0.02, np.float32)
    scene[4:6, 4:6] = 65504
    (level, *_) = panorama(scene, 1e9, 1e9).levels
    level = level.float()
    assert torch.isfinite(level).all() and float(level.max() / level.min()) == pytest.approx(65504 / 0.02, rel=2e-3)
