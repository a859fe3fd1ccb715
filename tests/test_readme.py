"""The README's commands, as they stand there, on small files under the names that it uses.

Its two set-up commands want a fresh machine: `.ci/run newest` runs those.
"""

import itertools
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.app import main
from ldr2hdr_cli.media.exr import write_exr
from model import MaskedUNet, NetworkConfig, save_network
from tests.conftest import write_clip

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
SET_UP = re.compile(r"python3 -m venv|pip install")
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "sh"
    for line in block.strip().splitlines()
    if not SET_UP.search(line)
]
# What the README leaves at the values for real work; everything it does write stays.
BRIEF = {
    ("train", "pretrain"): "--max-steps 1 --base-channels 2 --depth 2 --patch-size 32 --batch-size 1 --workers 0 "
    "--validation-patches 1 --pictures-every 0 --accelerator cpu",
    ("train", "finetune"): "--max-steps 1 --patch-size 32 --batch-size 1 --workers 0 --validation-patches 1 "
    "--pictures-every 0 --accelerator cpu",
    ("evaluate", "--hdr"): "--size 48 --views 1 --share 8 --no-mild --no-cvvdp --jobs 1 --device cpu",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the README's commands name; they build on one another, so they share it."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for name in ("photos/a.jpg", "photos/more/b.jpg", "archive/c.jpg", "panorama.jpg", "photographs/d.jpg"):
        write_picture(folder / name, rng)
    write_picture(folder / "photographs/e.jpg", rng)
    frames = [np.full((64, 64, 3), 60 + number % 196, np.uint8) for number in range(260)]
    write_clip(folder / "clip.mov", frames, codec="mjpeg", pixels="yuvj420p", layout="rgb24")
    for scenes in ("panoramas", "truths"):
        (folder / scenes).mkdir()
        for name in ("attic", "beach", "cave"):
            scene = np.kron(np.exp2(rng.uniform(-1, 1, (8, 16, 3))), np.ones((8, 8, 1))).astype(np.float32)
            scene[8:16, 8:16] *= 40
            write_exr(folder / scenes / f"{name}.exr", scene)
    small = MaskedUNet(NetworkConfig(base_channels=2, depth=2))
    save_network(small, folder / "santos2020_official.pth")
    return folder


def write_picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(100, 256, (40, 80, 3), dtype=np.uint8)).save(path)


def test_the_readme_says_how_to_set_up_first_and_how_to_test_second() -> None:
    """`.ci/run newest` takes them by their place."""
    shell = [block for language, block in BLOCKS if language == "sh"]
    assert "pip install ." in shell[0] and "ldr2hdr convert examples" in shell[0]
    assert 'pip install -e ".[dev]"' in shell[1] and " -m pytest " in shell[1]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_does_what_it_says(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(line.split(" #")[0])
    assert words[0] == "ldr2hdr"
    brief = next((more for start, more in BRIEF.items() if tuple(words[1:3]) == start), "")
    monkeypatch.setattr(sys, "argv", [*words, *brief.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capfd.readouterr().err
    for target in named_outputs(words):
        assert any(path.is_file() for path in (folder / target).rglob("*.*")), f"nothing in {target}"
        if words[1] == "convert":
            shutil.rmtree(folder / target)  # several recipes share one


def named_outputs(words: list[str]) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word in ("-o", "--out")]


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_every_python_snippet_of_the_readme_runs(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(block, str(README), "exec"), {"ldr": np.ones((8, 8, 3), np.float32)})
