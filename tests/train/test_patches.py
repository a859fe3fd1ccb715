"""Patches cut beforehand: what is stored, what the index says of it, and what is made of it in training."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from ldr2hdr_cli.media.pictures import find_pictures, read_hdr, read_photo
from model import exposure_mask
from model.errors import Ldr2hdrError
from train.camera import CameraConfig, camera_curve, midtone_scale
from train.datasets import is_store, load_scene, read_without_light, stored_patches
from train.patches import cut_patches, read_index
from train.readers import Readers
from train.samples import TRIED, TRIES, HDRDataset, choose
from train.scenes import pictures_of, scenes_split
from train.views import flat

READERS = Readers(find_pictures, read_photo, read_hdr)
PLAIN = CameraConfig(n_std=0, sigma_std=0, hue_std=0, saturation_std=0, noise_max=0, jpeg_probability=0, sharpen=0)
TINTS = {"amber_01": (4, 2, 1), "amber_02": (4, 2, 1), "moss": (1, 3, 1), "slate": (1, 2, 5)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Four pictures of three scenes, told apart by their tint, rough on the left and smooth on the right."""
    folder = tmp_path_factory.mktemp("scenes")
    rows, columns = np.mgrid[:96, :120] / 96
    for seed, (name, tint) in enumerate(TINTS.items()):
        rough = np.random.default_rng(seed).normal(0, 1, (96, 120)) * (columns < 0.6)
        light = np.exp(2 * np.sin(5 * rows) * np.cos(4 * columns) + rough)
        picture = (light[..., None] * np.array(tint)).astype(np.float32)
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": picture}).write(str(folder / f"{name}.exr"))
    return folder


def cut(scenes: Path, out: Path, **how):
    return cut_patches([scenes], out, READERS, **{"per_scene": 6, "size": 32, "threshold": 0.0, "config": PLAIN, **how})


def tint_of(patch: np.ndarray) -> np.ndarray:
    """Colour of an H×W×3 patch, its channels' sum 1."""
    total = patch.reshape(-1, 3).astype(np.float64).sum(0)
    return total / total.sum()


def test_the_index_tells_where_every_patch_comes_from_and_the_arrays_hold_it(scenes, tmp_path):
    summary = cut(scenes, tmp_path)
    entries = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert entries == read_index(tmp_path) and is_store(tmp_path) and not is_store(scenes)
    assert (summary.kept, summary.scenes, summary.untextured, summary.unsaturated) == (24, 4, 0, 0)
    assert len(entries) == 24 == len({(entry["file"], entry["row"]) for entry in entries})
    for entry in entries:
        patch = np.load(tmp_path / entry["file"])[entry["row"]]
        name = Path(entry["source"]).stem
        assert patch.shape == (32, 32, 3) and patch.dtype == np.float16
        assert np.median(patch) == pytest.approx(0.18, rel=2e-3)
        assert np.allclose(tint_of(patch), np.array(TINTS[name]) / sum(TINTS[name]), atol=2e-3)
        assert entry["scene"] == name.split("_")[0]
    assert not list(tmp_path.glob(".*"))  # no half-written file is left


def test_a_threshold_drops_just_the_patches_that_score_below_it(scenes, tmp_path):
    cut(scenes, tmp_path / "all")
    scores = [(entry["source"], entry["score"]) for entry in read_index(tmp_path / "all")]
    middle = float(np.median([score for _, score in scores]))
    summary = cut(scenes, tmp_path / "textured", threshold=middle)
    wanted = [pair for pair in scores if pair[1] >= middle]
    assert [(entry["source"], entry["score"]) for entry in read_index(tmp_path / "textured")] == wanted
    assert summary.kept == len(wanted) and summary.untextured == 24 - len(wanted) > 0
    with pytest.raises(Ldr2hdrError, match="no patch was kept"):
        cut(scenes, tmp_path / "none", threshold=1e9)


def test_patches_with_nothing_clipped_are_dropped(scenes, tmp_path):
    dim = CameraConfig(mild_probability=1, mild_low=-12, mild_high=-10)
    with pytest.raises(Ldr2hdrError, match="24 with nothing clipped"):
        cut(scenes, tmp_path, config=dim)


def test_excluded_pictures_leave_no_patch(scenes, tmp_path):
    summary = cut(scenes, tmp_path, exclude=lambda path: path.stem.startswith("amber"))
    assert summary.scenes == 2 and {entry["scene"] for entry in read_index(tmp_path)} == {"moss", "slate"}


def test_cutting_again_cuts_the_same(scenes, tmp_path):
    for name in "ab":
        cut(scenes, tmp_path / name)
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files[0])


def test_validation_gets_whole_scenes_of_a_store(scenes, tmp_path):
    cut(scenes, tmp_path)
    sources = sorted({Path(entry["source"]) for entry in read_index(tmp_path)})
    for seed in range(6):
        training, validation = (
            stored_patches(tmp_path, 32, 0, PLAIN, sources=set(part)) for part in scenes_split(sources, 0.3, seed)
        )
        seen = [{hue_of(dataset[i]) for i in range(40)} for dataset in (training, validation)]
        assert len(seen[0]) == 2 and len(seen[1]) == 1 and not seen[0] & seen[1]


def hdr_pictures(paths: list[Path]):
    return pictures_of(paths, partial(load_scene, read=read_hdr, size=16, camera=PLAIN), {})


def hue_of(sample: dict) -> int:
    """The brightest channel, which tells the three scenes apart."""
    return int(sample["truth"].sum((1, 2)).argmax())


def test_a_sample_is_a_function_of_seed_and_number_and_fits_together(scenes, tmp_path):
    cut(scenes, tmp_path)
    stored = [stored_patches(tmp_path, 16, seed, PLAIN) for seed in (3, 3, 4)]
    fresh = [HDRDataset(hdr_pictures(sorted(scenes.glob("*.exr"))), 16, seed, PLAIN) for seed in (3, 3, 4)]
    for one, same, other in (stored, fresh):
        assert all(one[9][name].equal(same[9][name]) for name in ("ldr", "mask", "truth"))
        assert not one[9]["truth"].equal(other[9]["truth"]) and not one[9]["truth"].equal(one[10]["truth"])
        for index in (0, 7, 1 << 40):
            ldr, mask, truth = (one[index][name].numpy() for name in ("ldr", "mask", "truth"))
            assert ldr.shape == mask.shape == truth.shape == (3, 16, 16)
            assert np.array_equal(mask, exposure_mask(ldr, 0.96))
            assert (mask < 1).any() and truth.max() > 1  # something is clipped, and the truth goes on above
            scene = truth / midtone_scale(PLAIN.n_mean, PLAIN.sigma_mean)
            seen = camera_curve(np.minimum(scene, 1), PLAIN.n_mean, PLAIN.sigma_mean)
            assert np.abs(ldr - seen).max() <= 0.5 / 255 + 1e-6


def test_photographs_make_their_share_of_the_samples_and_never_more_than_their_own_range(scenes, tmp_path):
    photo = tmp_path / "meadow.png"  # 2:1, and yet no panorama
    codes = np.random.default_rng(0).integers(10, 240, (40, 80, 1)) * np.array([0.5, 1, 0.4])
    Image.fromarray(codes.astype(np.uint8)).save(photo)
    amber = hdr_pictures(sorted(scenes.glob("amber*.exr")))
    read = partial(read_without_light, read_photo=read_photo)
    load = partial(load_scene, read=read, size=16, camera=PLAIN, panorama="no")
    photos = pictures_of([photo], load, {})
    dataset = HDRDataset(amber, 16, 0, PLAIN, sampling=False, photos=photos, photo_share=0.3)
    samples = [dataset[index] for index in range(300)]
    green = [sample for sample in samples if hue_of(sample) == 1]
    assert len(green) == pytest.approx(90, abs=25)
    assert all((sample["mask"] < 1).any() and sample["truth"].max() > 1 for sample in green)
    for sample in green:  # T^2 of the photograph on some scale: what its channels differ by stays
        red, blue = (sample["truth"][channel] / sample["truth"][1] for channel in (0, 2))
        assert red.median() == pytest.approx(0.25, abs=0.01) and blue.median() == pytest.approx(0.16, abs=0.01)
    alone = HDRDataset(amber, 16, 0, PLAIN, sampling=False, photo_share=0.3)
    assert {hue_of(alone[index]) for index in range(40)} == {0}


def test_sampling_prefers_texture():
    """A picture smooth on one half and rough on the other: what is chosen is rougher than what is drawn."""
    rows, columns = np.mgrid[:64, :256] / 64
    light = np.exp(2 * np.sin(3 * rows) * np.cos(3 * columns))
    light[:, 128:] *= np.exp(np.random.default_rng(0).normal(0, 0.5, (64, 128)))
    picture = np.repeat(light[..., None], 3, 2).astype(np.float32)

    def roughness(least_score: float | None) -> float:
        tried = np.random.default_rng(0).random((40, TRIES, TRIED))
        chosen, _ = choose([flat(picture, 64)] * 40, tried, np.zeros(40), 32, PLAIN, least_score=least_score)
        return float(chosen.log().diff(dim=3).abs().mean())

    assert roughness(0.85) > 1.3 * roughness(None)


# -- a store that cannot be trusted ----------------------------------------------------------------------------------


ENTRY = {"file": "a.npy", "row": 0, "source": "a.exr", "scene": "a", "score": 1.0}


def write_store(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "a.npy", np.ones((2, 8, 8, 3), np.float16))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def with_values(**values) -> str:
    return json.dumps({**ENTRY, **values})


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[" * 100_000,
        '{"a":' * 100_000,
        "5",
        "null",
        '{"file": "a.npy"}',
        with_values(row=-1),
        with_values(row=2),
        with_values(row=0.5),
        with_values(row="0"),
        with_values(row=True),
        with_values(row=float("inf")),
        with_values(row=10**30),
        with_values(file=5),
        with_values(file=["a.npy"]),
        with_values(file=""),
        with_values(file="."),
        with_values(file="a\0.npy"),
        with_values(file="a" * 5000),
        with_values(file="text.npy"),
        with_values(file="zip.npz"),
        with_values(file="words.npy"),
        with_values(file="none.npy"),
        with_values(source=5),
        with_values(source=None),
    ],
    ids=range(25),
)
def test_a_damaged_index_is_refused_in_a_sentence(tmp_path, line):
    store = write_store(tmp_path / "store", line)
    (store / "text.npy").write_text("no array")
    np.savez(store / "zip.npz", a=np.ones((2, 8, 8, 3)))
    np.save(store / "words.npy", np.full((2, 8, 8, 3), "word"))
    np.save(store / "none.npy", np.ones((2, 0, 8, 3), np.float16))
    with pytest.raises(Ldr2hdrError, match=r"store is not a complete patch store \(.*\); recreate it with") as refused:
        read_index(store)
    assert "\n" not in str(refused.value)


def test_the_store_that_those_were_made_of_is_whole(tmp_path):
    assert read_index(write_store(tmp_path / "store", with_values(row=1))) == [{**ENTRY, "row": 1}]


@pytest.mark.parametrize(
    "file", ["../../x.npy", "../x.npy", "{here}/x.npy", "sub/../../x.npy", "sub/y.npy", "link.npy"]
)
def test_an_index_that_names_a_file_outside_of_its_store_is_refused(tmp_path, file):
    store = tmp_path / "deep" / "store" if file.startswith("../..") else tmp_path / "store"
    store.parent.mkdir(exist_ok=True)
    write_store(store, with_values(file=file.format(here=tmp_path)))
    (store / "sub").mkdir()
    for outside in (tmp_path / "x.npy", store / "sub" / "y.npy"):
        np.save(outside, np.ones((2, 8, 8, 3), np.float16))
    if file == "link.npy":
        try:
            (store / file).symlink_to(tmp_path / "x.npy")
        except OSError:
            pytest.skip("links need a privilege on Windows")
    with pytest.raises(Ldr2hdrError, match="which is outside of it"):
        read_index(store)
