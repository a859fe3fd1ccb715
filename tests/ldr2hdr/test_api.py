"""`import ldr2hdr`: what it costs, and that it does what the command does."""

import os
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ldr2hdr
from ldr2hdr_cli.app import app
from ldr2hdr_cli.convert import job
from ldr2hdr_cli.media import exr
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise
from tests.conftest import write_clip

ROOT = Path(__file__).resolve().parents[2]


def picture(seed: int = 0) -> np.ndarray:
    """48×64, a third of it blown out."""
    values = np.random.default_rng(seed).integers(0, 240, (48, 64, 3), dtype=np.uint8)
    values[:16] = 255
    return values


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "small.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mkv", [picture(seed) for seed in range(6)], pixels="bgr0", layout="rgb24")


def python(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=environment
    )


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.exr"))}


def test_convert_in_a_thread_makes_the_bytes_of_the_command(tmp_path, weights, clip):
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    inputs = [tmp_path / "photo.png", clip]
    how = ["--weights", weights, "--temporal", "strong", "--tile", "32", "--overlap", "8"]
    done = CliRunner().invoke(app, ["convert", *map(str, [*inputs, *how, "-o", tmp_path / "command"])])
    assert done.exit_code == 0, done.output
    options = ldr2hdr.ConvertOptions(weights=weights, temporal="strong", tile=32, overlap=8)  # type: ignore[arg-type]
    events: list[ldr2hdr.Event] = []
    thread = threading.Thread(target=lambda: events.extend(ldr2hdr.convert(inputs, tmp_path / "api", options)))
    thread.start()
    thread.join()
    assert [type(event).__name__ for event in events if not isinstance(event, ldr2hdr.Note)] == [
        "Started", *["Done"] * 7
    ]  # fmt: skip
    assert results(tmp_path / "api") == results(tmp_path / "command")


def test_a_closed_iterator_leaves_everything_recorded_and_the_directory_free(tmp_path, weights, clip):
    options, out = ldr2hdr.ConvertOptions(weights=weights), tmp_path / "out"
    iterator = ldr2hdr.convert(clip, out, options)
    while not isinstance(next(iterator), ldr2hdr.Done):
        pass
    with pytest.raises(ldr2hdr.Ldr2hdrError, match="in use"):
        list(ldr2hdr.convert(clip, out, options))
    closing = threading.Thread(target=iterator.close)  # type: ignore[attr-defined]
    closing.start()
    closing.join()
    made = results(out)
    assert set(job.Manifest.read(out).everything().entries) == set(made)
    events = list(ldr2hdr.convert(clip, out, options))
    assert sum(isinstance(event, ldr2hdr.Skipped) for event in events) == len(made) >= 1
    assert len(results(out)) == 6


def test_setting_stop_ends_it_as_well(tmp_path, weights, clip):
    stop = threading.Event()
    stop.set()
    options = ldr2hdr.ConvertOptions(weights=weights)
    assert [type(event) for event in ldr2hdr.convert([clip], tmp_path / "out", options, stop=stop)] == [ldr2hdr.Started]


def test_a_message_is_told_while_the_frame_it_came_from_is_still_at_work(tmp_path, weights, monkeypatch):
    from ldr2hdr_cli.convert import network

    Image.fromarray(picture()).save(tmp_path / "photo.png")
    told, answers, made = threading.Event(), [], network.reconstructors

    def reconstructors(options, notify):
        def predict(self, work):
            notify("short of memory")
            answers.append(told.wait(20))
            return original(self, work)

        original = network.Network.predict
        monkeypatch.setattr(network.Network, "predict", predict)
        return made(options, notify)

    monkeypatch.setattr(network, "reconstructors", reconstructors)
    said = []
    for event in ldr2hdr.convert(tmp_path / "photo.png", tmp_path, ldr2hdr.ConvertOptions(weights=weights)):
        said.append(type(event).__name__)
        if isinstance(event, ldr2hdr.Message):
            told.set()
    assert said == ["Started", "Note", "Message", "Done"] and answers == [True]


def test_reconstruct_does_what_the_command_does_without_options(tmp_path):
    codes = picture()
    Image.fromarray(codes).save(tmp_path / "photo.png")
    list(ldr2hdr.convert(tmp_path / "photo.png", tmp_path, ldr2hdr.ConvertOptions(float_=True)))
    expected, *_ = exr.read_exr(tmp_path / "photo.exr")
    np.testing.assert_array_equal(ldr2hdr.reconstruct(codes), expected)
    np.testing.assert_array_equal(ldr2hdr.reconstruct(codes.astype(np.float32) / 255), expected)
    np.testing.assert_array_equal(ldr2hdr.reconstruct(codes.astype(np.uint16) * 257), expected)
    with pytest.raises(ValueError, match="not int64"):
        ldr2hdr.reconstruct(codes.astype(np.int64))


def test_every_name_is_there():
    assert all(getattr(ldr2hdr, name) is not None for name in ldr2hdr.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ldr2hdr.nothing


def test_importing_it_loads_nothing_heavy_and_spares_the_neighbours():
    look = "import os, sys, ldr2hdr; print(os.environ.get('OMP_WAIT_POLICY'), *sys.modules)"
    policy, *loaded = python("-c", look, OMP_WAIT_POLICY="ACTIVE").stdout.split()
    assert policy == "ACTIVE"  # the user's own
    assert "ldr2hdr" in loaded and not {"torch", "numpy", "av", "typer", "cv2", "PIL"} & {*loaded}
    without = "import os; del os.environ['OMP_WAIT_POLICY']; "
    assert python("-c", without + look, OMP_WAIT_POLICY="").stdout.startswith("PASSIVE ")
    late = without + "import sys, types; sys.modules['torch'] = types.ModuleType('torch'); "
    assert python("-c", late + look, OMP_WAIT_POLICY="").stdout.startswith("None ")


@pytest.fixture
def crowded(tmp_path) -> Path:
    """A folder of somebody who trains networks."""
    for name in ("model", "train"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of the user')\n")
    return tmp_path


@pytest.mark.parametrize("is_installed", [False, True])
def test_the_command_works_beside_a_model_py_of_the_users_own(crowded, is_installed):
    words = ["-m", "ldr2hdr_cli"]
    if is_installed:
        (crowded / "bin").mkdir()
        script = crowded / "bin" / "ldr2hdr"  # as pip writes it
        script.write_text("import sys\nfrom ldr2hdr_cli.app import main\nsys.exit(main())\n")
        words = [str(script)]
    done = python(*words, "train", "average", "--help", cwd=crowded)
    assert done.returncode == 0 and "lineage" in done.stdout, done.stderr


def test_a_foreign_model_is_named_where_the_library_cannot_work(tmp_path):
    (tmp_path / "model.py").write_text("")
    done = python("-c", "import ldr2hdr", cwd=tmp_path)
    assert f"{tmp_path / 'model.py'} comes first on sys.path: rename that" in done.stderr


def test_what_is_shipped_and_its_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]

    def is_shipped(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    ours = [
        path.parent
        for top in ("ldr2hdr", "ldr2hdr_cli", "model", "train")
        for path in (ROOT / top).rglob("__init__.py")
    ]
    assert all(is_shipped(".".join(path.relative_to(ROOT).parts)) for path in ours)
    assert not any(map(is_shipped, ("trainruns", "trainruns.hdr", "models", "ldr2hdr_clips", "tests", "benchmarks")))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "model.__version__"}
    assert f"ldr2hdr {ldr2hdr.__version__}" == exr.SOFTWARE


def test_every_event_can_be_told_apart_by_a_public_name():
    public = [getattr(ldr2hdr, name) for name in ldr2hdr.__all__ if name != "Event"]
    assert all(kind in public for kind in get_args(ldr2hdr.Event))
