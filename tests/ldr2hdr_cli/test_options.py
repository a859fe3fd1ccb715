"""Options from defaults, a YAML file, the environment and flags; what is refused, and by which sentence."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app, main
from ldr2hdr_cli.options import CommandOptions, ConvertOptions
from ldr2hdr_cli.typer_options import make_options
from model.errors import Ldr2hdrError
from tests import cli


def config(folder: Path, text: str) -> Path:
    path = folder / "studio.yaml"
    path.write_text(text)
    return path


def test_flags_go_over_the_environment_over_the_file_over_the_defaults(tmp_path):
    path = config(tmp_path, "tile: 256\noverlap: 32\ntransfer: srgb\n")
    environment = {"LDR2HDR_OVERLAP": "48", "LDR2HDR_TRANSFER": "bt709", "LDR2HDR_QUIET": "", "HOME": "/"}
    made = make_options(CommandOptions, {"transfer": "gamma"}, path, environment)
    assert made == CommandOptions(tile="256", overlap=48, transfer="gamma")


def test_words_mean_in_yaml_and_the_environment_what_they_mean_as_flags(tmp_path):
    """YAML 1.1 reads `off` and `no` as false."""
    text = "temporal: off\nworking-size: off\nrecursive: yes\nfps: 24000/1001\nframes: 7\nfloat: true\ngamma: 1e0\n"
    made = make_options(CommandOptions, {}, config(tmp_path, text), {"LDR2HDR_JSON": "1", "LDR2HDR_PREVIEW": "no"})
    assert made == CommandOptions(
        temporal="off",
        working_size="off",
        recursive=True,
        fps="24000/1001",
        frames="7",
        float_=True,
        gamma=1.0,
        json=True,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tiel: 3", "has no option 'tiel'"),
        ("3: 3", "has no option 3 to set"),
        ("tile: huge", r"studio.yaml: tile huge: give a number of pixels, or auto\."),
        ("every: 0", "studio.yaml: every is 0, but must be at least 1"),
        ("every: 2.5", "studio.yaml: every is 2.5, but must be a whole number"),
        ("temporal: strnog", "studio.yaml: temporal is 'strnog', but must be one of auto, off, strong"),
        ("gamma: .nan", "studio.yaml: gamma is nan, but must be a finite number"),
        ("recursive: perhaps", "studio.yaml: recursive is 'perhaps', but must be true or false"),
        ("weights: [a]", "studio.yaml: weights is .*, but must be the name of a file"),
        ("memory: lots", "studio.yaml: memory lots: not an amount of memory"),
        ("fps: -1", "studio.yaml: fps -1: give frames a second"),
        ("[1]", "holds no table of settings; write one option a line"),
    ],
)
def test_what_a_file_says_wrongly_is_one_sentence(tmp_path, text, says):
    with pytest.raises(Ldr2hdrError, match=says) as refused:
        make_options(CommandOptions, {}, config(tmp_path, text + "\n"), {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("EVERY", "x", "LDR2HDR_EVERY is 'x', but must be a whole number"),
        ("EVERY", "-1", "LDR2HDR_EVERY is -1, but must be at least 1"),
        ("FLOAT", "maybe", "LDR2HDR_FLOAT is 'maybe', but must be true or false"),
        ("GAMMA", "inf", "LDR2HDR_GAMMA is inf, but must be a finite number"),
        ("COMPRESSION", "zap", "LDR2HDR_COMPRESSION is 'zap', but must be one of zip"),
    ],
)
def test_what_the_environment_says_wrongly_names_the_variable(variable, text, says):
    with pytest.raises(Ldr2hdrError, match=says):
        make_options(CommandOptions, {}, None, {"LDR2HDR_" + variable: text})


def test_a_flag_is_taken_whatever_the_variable_says():
    assert make_options(CommandOptions, {"every": 2}, None, {"LDR2HDR_EVERY": "x"}).every == 2


def test_what_a_file_or_a_variable_turns_on_a_flag_turns_off(tmp_path, monkeypatch, capfd):
    """A dry run that is undone writes; the last of several flags counts."""
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    path = config(tmp_path, "method: clip\ndry-run: true\nfloat: true\npreview: true\n")
    words = ["convert", "photo.png", "-o", "out", "--config", path.name]
    undone = ["--no-dry-run", "--no-float", "--no-quiet", "--no-preview", "--preview", "--no-preview"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LDR2HDR_QUIET", "1")
    monkeypatch.setattr(sys, "argv", ["ldr2hdr", *words, *undone])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == 0 and said, said
    assert [file.name for file in (tmp_path / "out").iterdir() if file.suffix in (".exr", ".png")] == ["photo.exr"]
    (part,) = (tmp_path / "out" / "ldr2hdr-manifest").rglob("*.jsonl")
    lines = part.read_text().splitlines()
    assert next(entry for entry in map(json.loads, lines) if "output" not in entry)["settings"]["half"] is True


def test_what_to_type_again_undoes_an_overwrite_that_was_not_typed(tmp_path, monkeypatch, capfd):
    """Else all that is finished would be made once more for the one that failed."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LDR2HDR_OVERWRITE", "true")
    monkeypatch.setattr(sys, "argv", ["ldr2hdr", "convert", "broken.png", "-o", "out", "--method", "clip"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "ldr2hdr convert broken.png -o out --method clip --no-overwrite\n" in capfd.readouterr().err


def test_the_help_shows_a_negative_only_of_what_is_on():
    for name in ("convert", "evaluate"):
        said = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        assert "--config" in said
        on = {"convert": {"--no-metadata"}, "evaluate": {"--no-mild", "--no-cvvdp", "--no-cache"}}
        assert set(re.findall(r"--no-[a-z]+", said)) == on[name]


@pytest.mark.parametrize("wrong", [["--memory", "lots"], ["--tile", "huge"], ["--fps", "0"]])
def test_misuse_beside_json_is_a_sentence_on_stderr_and_nothing_on_stdout(tmp_path, monkeypatch, capfd, wrong):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ldr2hdr", "convert", "photo.png", "-o", "out", "--json", *wrong])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith(f"ldr2hdr: {wrong[0]} ") and said.err.count("\n") == 1


@pytest.mark.parametrize("wrong", [{"temporal": "strnog"}, {"tile": 0}, {"every": 0}, {"weights": 3}, {"exposure": 99}])
def test_a_programmer_is_told_at_once(wrong):
    with pytest.raises(Ldr2hdrError, match=next(iter(wrong))):
        ConvertOptions(**wrong)


def test_the_command_takes_a_file_and_variables(tmp_path):
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    path = config(tmp_path, "method: clip\nformat: hdr\nexposure: 1\n")
    words = ["convert", "photo.png", "-o", "out", "--config", path.name, "--exposure", "2"]
    done = cli.run(*words, cwd=tmp_path, env={"LDR2HDR_FORMAT": "exr", "LDR2HDR_QUIET": "1"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (tmp_path / "out" / "photo.exr").is_file()
    (part,) = (tmp_path / "out" / "ldr2hdr-manifest").rglob("*.jsonl")
    lines = part.read_text().splitlines()
    (spelt,) = (entry["settings"] for entry in map(json.loads, lines) if "output" not in entry)
    assert (spelt["method"], spelt["exposure"], spelt["format"]) == ("clip", 2.0, "exr")
