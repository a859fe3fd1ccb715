"""`ldr2hdr train` as a subprocess: how it ends, what it says of bad input, what it leaves behind."""

import csv
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from ldr2hdr_cli.app import main
from ldr2hdr_cli.lock import lock
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.pictures import read_photo
from model import MaskedUNet, NetworkConfig, Reconstructor, load_network, save_network
from model.checkpoint import SCENES_KEY, read_metadata, read_scenes
from model.errors import Ldr2hdrError
from tests import cli
from train.config import make_settings
from train.datasets import load_photo
from train.loop import train as fit
from train.samples import InpaintingDataset
from train.scenes import pictures_of

TINY = ["--base-channels", 2, "--depth", 2, "--patch-size", 16, "--batch-size", 2, "--accelerator", "cpu"]
TINY += ["--perceptual", "none", "--validation-patches", 2, "--pictures-every", 0, "--log-every", 1]
ONE_STEP = ["--max-steps", 1, "--workers", 0]
WIDE = {"COLUMNS": "200"}


@pytest.fixture
def train(monkeypatch, capfd):
    """train(*arguments) → (exit status, what was said), in this process, through the `ldr2hdr` command's own main."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ldr2hdr", "train", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return run


def logged(run: Path, kind: str = "train") -> list[int]:
    """The steps in a run's log."""
    path = run / "log.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [int(line.split(",")[0]) for line in lines if f",{kind}," in line]


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="process groups and /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_saves_and_the_run_can_go_on(photos, tmp_path, train, number):
    run = tmp_path / "run"
    words = ["--images", photos, "--out", run, *TINY, "--workers", 2, "--max-steps", 10**9]
    process = cli.start("train", "pretrain", *words, start_new_session=True, env=WIDE)
    deadline = time.monotonic() + 60
    while not logged(run) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert len(workers) == 2 and "Traceback" not in said and "killed" not in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    reached = logged(run)[-1]
    assert f"Ended at step {reached} (signal)" in said
    status, said = train("pretrain", "--out", run, "--resume", "--max-steps", reached + 2)
    assert status == 0, said
    assert f"Resumed at step {reached} " in said
    assert logged(run) == list(range(1, reached + 3))


def test_two_processes_step_as_one_with_the_doubled_batch(photos, tmp_path, train):
    options = ["pretrain", "--images", photos, *TINY, "--workers", 0, "--max-steps", 4, "--validation-patches", 1]
    twice = [*options, "--out", tmp_path / "pair", "--batch-size", 1, "--devices", 2, "--strategy", "ddp"]
    pair = subprocess.run(  # a real process: it starts itself once more
        [sys.executable, "-m", "ldr2hdr_cli.app", "train", *map(str, twice)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1", **WIDE},
    )  # fmt: skip
    assert pair.returncode == 0, pair.stderr
    assert train(*options, "--out", tmp_path / "one", "--batch-size", 2)[0] == 0
    for said in ("Reading 3 pictures", "The bar:", "step 4:", "Ended at step 4"):
        assert pair.stderr.count(said) == 1
    assert losses(tmp_path / "pair") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    ends = [load_network(tmp_path / run / "last.safetensors").state_dict() for run in ("pair", "one")]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])


def losses(run: Path) -> list[float]:
    with (run / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_patches_train_and_what_is_trained_converts_a_photograph(hdrs, photos, tmp_path, train):
    assert train("patches", "--hdr", hdrs, "--out", tmp_path / "store", "--size", 32, "--threshold", 0)[0] == 0
    status, said = train("finetune", "--hdr", tmp_path / "store", "--out", tmp_path / "run", *TINY, *ONE_STEP)
    assert status == 0 and "Patches of 2 pictures to train on, of 1 held out" in said, said
    weights = tmp_path / "run" / "best.safetensors"
    photo = np.full((24, 24, 3), 90, np.uint8)
    photo[8:16, 8:16] = 255
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    done = cli.run("convert", tmp_path / "photo.png", "-o", tmp_path / "out", "--weights", weights, "--float")
    assert done.returncode == 0, done.stderr
    pixels, _, attributes = read_exr(tmp_path / "out" / "photo.exr")
    assert attributes["ldr2hdr/weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    wanted = Reconstructor(load_network(weights), device="cpu", transfer="srgb").reconstruct(np.float32(photo) / 255)
    assert np.allclose(pixels, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(pixels[8:16, 8:16] - 1).max() > 0.01  # the network has answered


def test_photographs_are_trained_on_beside_the_hdr_pictures(hdrs, photos, tmp_path, train):
    dim = np.random.default_rng(1).integers(0, 200, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "dim").mkdir()
    cv2.imwrite(str(tmp_path / "dim" / "d.png"), dim)
    dim[:2, :4] = 255  # a lamp, half a percent of the picture
    cv2.imwrite(str(tmp_path / "dim" / "lamp.png"), dim)
    first = tmp_path / "first.safetensors"
    save_network(MaskedUNet(NetworkConfig(base_channels=2, depth=2)), first, {SCENES_KEY: '["dune"]'})
    both = ["finetune", "--hdr", hdrs, "--images", photos, "--images", tmp_path / "dim", *TINY, *ONE_STEP]
    both += ["--init", first]
    status, said = train(*both, "--out", tmp_path / "run")
    assert status == 0 and "a.png is clipped itself" in said and "lamp.png is clipped itself" in said
    assert "1 photographs to train on beside them" in said, said
    assert "2 pictures to train on, 1 held out" in said  # photographs validate nothing
    status, said = train("finetune", "--out", tmp_path / "run", "--resume", "--max-steps", 2)
    assert status == 0 and "1 photographs to train on beside them" in said, said
    assert read_scenes(tmp_path / "run" / "last.safetensors") == ["attic", "beach", "cave", "d", "dune"]


# -- bad input: one sentence, status 2, before the first step ---------------------------------------------------------


@pytest.fixture(scope="module")
def hdrs(tmp_path_factory) -> Path:
    """Three scenes that can be trained on."""
    folder = tmp_path_factory.mktemp("hdrs")
    for seed, name in enumerate(("attic", "beach", "cave")):
        write_hdr(folder / f"{name}.exr", scene(seed))
    return folder


def scene(seed: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, 1, (40, 44, 3))).astype(np.float32)


def write_hdr(path: Path, picture: np.ndarray) -> None:
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": np.ascontiguousarray(picture, np.float32)}).write(str(path))


def spoil(folder: Path) -> list[str]:
    """Fills a folder with HDR pictures of every unusable kind; their names."""
    (folder / "broken.exr").write_bytes(b"no picture")
    (folder / "broken.hdr").write_bytes(b"#?RADIANCE\n")
    (folder / "empty.tif").write_bytes(b"")
    write_hdr(folder / "whole.exr", scene(9))
    (folder / "cut.exr").write_bytes((folder / "whole.exr").read_bytes()[:400])
    (folder / "whole.exr").unlink()
    holes, sunk = scene(1), scene(2)
    holes[3, 3] = np.nan
    sunk[5] = -5
    write_hdr(folder / "nan.exr", holes)
    write_hdr(folder / "negative.exr", sunk)
    write_hdr(folder / "black.exr", np.zeros((40, 40, 3)))
    write_hdr(folder / "small.exr", scene(3)[:3, :3])
    cv2.imwrite(str(folder / "ldr.tif"), np.full((40, 40, 3), 99, np.uint8))
    return sorted(path.name for path in folder.iterdir())


def told(said: str) -> str:
    """The sentence of the error: the last line, the only one that begins with the program's name."""
    lines = said.strip().splitlines()
    assert "Traceback" not in said and sum(line.startswith("ldr2hdr: ") for line in lines) == 1, said
    assert lines[-1].startswith("ldr2hdr: "), said
    return lines[-1]


def mentions(said: str, path: Path) -> int:
    """How many sentences are about a file."""
    return sum(line.startswith(f"{path} ") for line in said.splitlines())


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "patches"])
def test_an_empty_folder_is_named(verb, tmp_path, train):
    (tmp_path / "nothing").mkdir()
    option = "--images" if verb == "pretrain" else "--hdr"
    status, said = train(verb, option, tmp_path / "nothing", "--out", tmp_path / "run")
    assert status == 2 and str(tmp_path / "nothing") in told(said)


@pytest.mark.parametrize("verb", ["finetune", "patches"])
def test_unusable_hdr_pictures_are_each_named_once_and_none_left_is_an_error(verb, tmp_path, train):
    folder = tmp_path / "spoilt"
    folder.mkdir()
    names = spoil(folder)
    status, said = train(verb, "--hdr", folder, "--out", tmp_path / "run", *(TINY if verb == "finetune" else ()))
    assert status == 2
    assert str(len(names)) in told(said) and str(folder) in told(said)
    assert all(mentions(said, folder / name) == 1 for name in names), said
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_unusable_pictures_among_good_ones_are_counted_and_left_out(hdrs, tmp_path, train):
    names = spoil(tmp_path)
    status, said = train("finetune", "--hdr", hdrs, "--hdr", tmp_path, "--out", tmp_path / "run", *TINY, *ONE_STEP)
    assert status == 0, said
    assert f"{len(names)} of {len(names) + 3} pictures are left out." in said
    assert "2 pictures to train on, 1 held out" in said
    assert all(mentions(said, tmp_path / name) == 1 for name in names), said
    cut = tmp_path / "cut"
    status, said = train("patches", "--hdr", hdrs, "--hdr", tmp_path, "--out", cut, "--size", 32, "--threshold", 0)
    assert status == 0 and f"{len(names)} bad pictures." in said


def test_broken_photographs_are_named(tmp_path, train):
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(whole[:200])
    (tmp_path / "text.jpg").write_text("no picture")
    status, said = train("pretrain", "--images", tmp_path, "--out", tmp_path / "run", *TINY)
    assert status == 2 and "2 pictures" in told(said)
    assert mentions(said, tmp_path / "cut.png") == mentions(said, tmp_path / "text.jpg") == 1


@pytest.mark.parametrize(
    "arguments, naming",
    [
        (["--init", "{here}/nowhere.safetensors"], "nowhere.safetensors"),
        (["--init", "{here}/text"], "text: not a weights file"),
        (["--camera", "iso=100"], "iso"),
        (["--camera", "share_low"], "share_low=0.01"),
        (["--camera", "share_low=0.9"], "share_low"),
        (["--camera", "noise_max=-1"], "noise_max"),
        (["--camera", "n_mean=nan"], "n_mean"),
        (["--camera", "jpeg_low=inf"], "camera"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--batch-size", "0"], "batch_size"),
        (["--validation-share", "0"], "validation_share"),
        (["--perceptual", "vgg16"], "vgg16"),
        (["--perceptual", "vgg19", "--vgg-weights", "{here}/text"], "text"),
        (["--depth", "5"], "patch size of 16"),
        (["--max-hours", "0"], "max_hours is 0.0, but must be greater than 0"),
        (["--checkpoint-minutes", "0"], "checkpoint_minutes"),
        (["--seed", "99999999999"], "seed is 99999999999, but must be 0 to 4294967295"),
        (["--mask-threshold", "2"], "mask_threshold"),
        (["--exclude", "{here}/nowhere.txt"], "nowhere.txt"),
        (["--out", "{here}/text"], "text"),
        (["--out", "{here}/text/run"], "text"),
        (["--resume"], "no run to resume"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(arguments, naming, hdrs, tmp_path, train):
    (tmp_path / "text").write_text("neither weights nor a folder")
    given = [item.format(here=tmp_path) for item in arguments]
    status, said = train("finetune", "--hdr", hdrs, "--out", tmp_path / "run", *TINY, *ONE_STEP, *given)
    assert status == 2 and naming in told(said)


@pytest.mark.parametrize(
    "text, naming",
    [
        ("run: [1,\n  : :", "is not YAML"),
        ("\x00", "is not YAML"),
        ("- 1\n", "no table"),
        ("runn: {}\n", "runn"),
        ("run: 5\n", "run is 5"),
        ("camera: 5\n", "camera is 5"),
        ("run: {sed: 1}\n", "run.sed"),
        ("run: {seed: one}\n", "run.seed is 'one'"),
        ("stage: sleeping\n", "sleeping"),
        ("camera: {iso: 100}\n", "iso"),
        ("camera: {share_low: [1]}\n", "camera"),
        ("run: &r {seed: 1}\nloss: *r\n", "YAML aliases"),
        ("", "no table"),
    ],
)
def test_a_settings_file_that_does_not_fit_is_named(text, naming, hdrs, tmp_path, train):
    (tmp_path / "settings.yaml").write_text(text)
    options = ["--config", tmp_path / "settings.yaml", "--hdr", hdrs, "--out", tmp_path / "run", *TINY, *ONE_STEP]
    status, said = train("finetune", *options)
    assert status == 2 and naming in told(said)


def test_flags_go_over_the_settings_file_of_a_run(photos, tmp_path, train):
    assert train("pretrain", "--images", photos, "--out", tmp_path / "first", *TINY, *ONE_STEP, "--seed", 5)[0] == 0
    again = ["--config", tmp_path / "first" / "settings.yaml", "--out", tmp_path / "second"]
    assert train("pretrain", *again)[0] == 0
    assert losses(tmp_path / "second") == losses(tmp_path / "first")
    assert train("pretrain", *again[:2], "--out", tmp_path / "third", "--seed", 6)[0] == 0
    assert losses(tmp_path / "third") != losses(tmp_path / "first")


def test_a_run_is_not_overwritten_and_a_damaged_checkpoint_is_named(photos, tmp_path, train):
    options = ["pretrain", "--images", photos, "--out", tmp_path / "run", *TINY, *ONE_STEP]
    assert train(*options)[0] == 0
    kept = (tmp_path / "run" / "last.ckpt").read_bytes()
    status, said = train(*options)
    assert status == 2 and "--resume" in told(said)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept
    (tmp_path / "run" / "last.ckpt").write_bytes(kept[: len(kept) // 2])
    status, said = train("pretrain", "--out", tmp_path / "run", "--resume")
    assert status == 2 and "last.ckpt" in told(said)


def test_an_empty_settings_file_is_not_resumed_as_the_defaults(photos, tmp_path, train):
    run = tmp_path / "run"
    assert train("pretrain", "--images", photos, "--out", run, *TINY, *ONE_STEP)[0] == 0
    whole = (run / "settings.yaml").read_text()
    resume = ["pretrain", "--images", photos, "--out", run, "--resume", "--max-steps", 2]
    for text in ("", "stage: inpainting\n"):
        (run / "settings.yaml").write_text(text)
        status, said = train(*resume)
        assert status == 2 and "settings.yaml" in told(said)
    (tmp_path / "kept.yaml").write_text(whole)
    status, said = train(*resume, "--config", tmp_path / "kept.yaml")
    assert status == 0, said


def test_what_a_killed_run_left_half_written_is_swept(photos, hdrs, tmp_path, train):
    for run, *options in (
        ("run", "pretrain", "--images", photos, *TINY, *ONE_STEP),
        ("store", "patches", "--hdr", hdrs, "--size", 32, "--threshold", 0),
    ):
        (tmp_path / run).mkdir()
        (tmp_path / run / ".ldr2hdr-0123.tmp").write_bytes(b"half a checkpoint")
        assert train(*options, "--out", tmp_path / run)[0] == 0
        assert not list((tmp_path / run).glob("*.tmp"))


def test_a_second_run_into_one_folder_is_refused_and_sweeps_nothing(photos, hdrs, tmp_path, train):
    with lock(tmp_path / "run"):
        (tmp_path / "run" / ".ldr2hdr-0123.tmp").write_bytes(b"half a checkpoint")
        for options in (("pretrain", "--images", photos, *TINY, *ONE_STEP), ("patches", "--hdr", hdrs, "--size", 32)):
            status, said = train(*options, "--out", tmp_path / "run")
            assert status == 2 and "in use by another run" in told(said)
        assert (tmp_path / "run" / ".ldr2hdr-0123.tmp").exists()


@pytest.mark.parametrize("verb", ["pretrain", "patches"])
def test_the_work_goes_on_when_nobody_reads_along_any_more(verb, photos, hdrs, tmp_path):
    """As in `ldr2hdr train … 2>&1 | head -1`."""
    options = {
        "pretrain": ["--images", photos, *TINY, "--workers", 0, "--max-steps", 20],
        "patches": ["--hdr", hdrs, "--size", 32, "--threshold", 0],
    }
    with cli.start("train", verb, "--out", tmp_path / "out", *options[verb], env=WIDE) as process:
        assert process.stderr.readline()
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 0
    if verb == "pretrain":
        assert logged(tmp_path / "out") == list(range(1, 21))
    else:
        assert (tmp_path / "out" / "index.jsonl").is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")
def test_a_name_cannot_move_the_cursor_or_forge_a_line(photos, hdrs, tmp_path, train):
    bad = "\x1b[2Jrun\nldr2hdr: all is well"
    (tmp_path / bad).mkdir()
    (tmp_path / bad / "broken\x1b]0;x\x07.exr").write_bytes(b"no picture")
    for picture in hdrs.iterdir():
        (tmp_path / bad / picture.name).write_bytes(picture.read_bytes())
    out = tmp_path / f"out{bad}"
    for arguments in (
        ("patches", "--hdr", tmp_path / bad, "--out", out / "store", "--size", 32, "--threshold", 0),
        ("finetune", "--hdr", tmp_path / bad, "--out", out / "run", *TINY, *ONE_STEP),
        ("finetune", "--hdr", tmp_path / bad / "none", "--out", out / "run", "--config", out / bad),
        ("average", out / "run" / "last.safetensors", "--out", out / "mean.safetensors"),
    ):
        _, said = train(*arguments)
        assert "\\x1b[2Jrun\\nldr2hdr: all is well" in said and "Traceback" not in said, said
        assert "\x1b" not in said and "\x07" not in said and "\nldr2hdr: all is well" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_utf_8_are_trained_on_and_in(photos, tmp_path, train):
    bad = tmp_path / os.fsdecode(b"latin-\xe9")
    bad.mkdir()
    for picture in photos.iterdir():
        (bad / os.fsdecode(b"\xff" + os.fsencode(picture.name))).write_bytes(picture.read_bytes())
    options = ["--images", bad, *TINY, "--pictures-every", 1, *ONE_STEP]
    status, said = train("pretrain", *options, "--out", bad / "run")
    assert status == 0, said
    assert (bad / "run" / "pictures" / "0000001.jpg").is_file()
    status, said = train("pretrain", "--out", bad / "run", "--resume", "--max-steps", 2)
    assert status == 0, said


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_list_that_excludes_every_picture_is_named(verb, photos, hdrs, tmp_path, train):
    folder, option = (photos, "--images") if verb == "pretrain" else (hdrs, "--hdr")
    (tmp_path / "all.txt").write_text("\n".join(path.name for path in folder.iterdir()))
    options = [verb, option, folder, "--out", tmp_path / "run", *TINY, *ONE_STEP, "--exclude", tmp_path / "all.txt"]
    status, said = train(*options)
    assert status == 2 and f"{tmp_path / 'all.txt'} excludes all 3 pictures" in told(said)


def test_one_broken_avif_among_good_photographs_does_not_end_the_run(photos, tmp_path, train):
    pytest.importorskip("PIL.AvifImagePlugin")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "broken.avif")
    data = bytearray((tmp_path / "broken.avif").read_bytes())
    data[data.index(b"iloc") + 12] ^= 0xFF  # the item that is located: Pillow's decoder raises RuntimeError
    (tmp_path / "broken.avif").write_bytes(data)
    status, said = train(
        "pretrain", "--images", photos, "--images", tmp_path, "--out", tmp_path / "run", *TINY, *ONE_STEP
    )
    assert status == 0 and mentions(said, tmp_path / "broken.avif") == 1, said


def test_a_patch_store_with_a_missing_or_shortened_array_is_named(hdrs, tmp_path, train):
    store = tmp_path / "store"
    assert train("patches", "--hdr", hdrs, "--out", store, "--size", 32, "--threshold", 0, "--per-scene", 4)[0] == 0
    array = next(store.glob("*.npy"))
    kept = array.read_bytes()
    for damage in (lambda: array.write_bytes(kept[:-100]), array.unlink):
        damage()
        status, said = train("finetune", "--hdr", store, "--out", tmp_path / "run", *TINY, *ONE_STEP)
        assert status == 2 and str(store) in told(said)


def test_a_patch_store_takes_no_photographs_beside_it(hdrs, photos, tmp_path, train):
    store = tmp_path / "store"
    assert train("patches", "--hdr", hdrs, "--out", store, "--size", 32, "--threshold", 0)[0] == 0
    status, said = train("finetune", "--hdr", store, "--images", photos, "--out", tmp_path / "run", *TINY, *ONE_STEP)
    assert status == 2 and str(store) in told(said) and "--images" in told(said)


def test_a_picture_that_vanishes_under_a_data_process_ends_the_run_with_one_sentence(tmp_path):
    settings = make_settings(
        {
            "stage": "inpainting",
            "network": {"base_channels": 2, "depth": 2},
            "data": {"patch_size": 16, "workers": 1},
            "loss": {"perceptual": "none"},
            "run": {"out": str(tmp_path), "max_steps": 1, "accelerator": "cpu"},
        }
    )
    photos = pictures_of([tmp_path / "gone.png"], partial(load_photo, read=read_photo, size=16), {})
    gone = InpaintingDataset(photos, 16, 0)
    with pytest.raises(Ldr2hdrError, match=r"\A\S*gone\.png cannot be read as a picture \(.*\)\.\Z"):
        fit(settings, gone, gone)
    for process in multiprocessing.active_children():  # as Python does at its end, and waits without end
        process.terminate()
        process.join(10)
        assert not process.is_alive()


def test_average_is_the_mean_and_says_of_what(train, tmp_path):
    config = NetworkConfig(base_channels=2, depth=2, decoder_activation="leaky_relu")
    values = (1.0, 2.0, 6.0)
    for value in values:
        net = MaskedUNet(config)
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter, value)
        metadata = {"ldr2hdr.stage": "hdr", "ldr2hdr.hours": "2", SCENES_KEY: f'["all", "{value:g}"]'}
        save_network(net, tmp_path / f"{value:g}.safetensors", metadata)
    out = tmp_path / "mean.safetensors"
    files = [tmp_path / f"{value:g}.safetensors" for value in values]
    code, said = train("average", *files, "--out", out, "--half", "--licence", "CC-BY-4.0")
    assert code == 0, said
    mean = load_network(out)
    assert mean.config == config
    assert all((parameter == 3).all() for parameter in mean.parameters())
    assert out.stat().st_size < files[0].stat().st_size
    metadata = read_metadata(out)
    assert metadata["ldr2hdr.stage"] == "hdr" and metadata["ldr2hdr.licence"] == "CC-BY-4.0"
    assert "ldr2hdr.hours" not in metadata
    assert read_scenes(out) == ["1", "2", "6", "all"]
    for file in files:
        assert f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" in metadata["ldr2hdr.mean_of"]


def test_average_refuses_what_has_no_mean(train, tmp_path):
    for channels in (2, 4):
        save_network(MaskedUNet(NetworkConfig(base_channels=channels, depth=2)), tmp_path / f"{channels}.safetensors")
    out = tmp_path / "mean.safetensors"
    code, said = train("average", tmp_path / "2.safetensors", tmp_path / "4.safetensors", "--out", out)
    assert code == 2 and "4.safetensors" in said and "settings" in said
    code, said = train("average", tmp_path / "2.safetensors", tmp_path / "none.safetensors", "--out", out)
    assert code == 2 and "none.safetensors" in said and "Traceback" not in said
    code, said = train("average", tmp_path / "2.safetensors", "--out", tmp_path / "no" / "mean.safetensors")
    assert code == 2 and "folder that exists" in said
    assert not out.exists()
