"""Settings files: what is refused, and that a run reads what it has written."""

import time

import pytest

from ldr2hdr_cli.config_file import MAX_YAML, read_yaml
from ldr2hdr_cli.train_commands import settings_of_run
from model.errors import Ldr2hdrError
from train.config import Settings, make_settings, save_settings

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "naming"),
    [
        (LAUGHS, "YAML aliases"),
        ("run: &r {seed: 1}\nloss: *r\n", "YAML aliases"),
        ("#" * (MAX_YAML + 1), "too many for settings"),
        (f"run: {'[' * 20_000}", "is not YAML"),
        (f"run: {{seed: {'9' * 9000}}}", "is not YAML"),
        ("run: {seed: 2001-99-99}", "is not YAML"),  # PyYAML raises a bare ValueError
        ("run: {seed: !!int ''}", "is not YAML"),  # and an IndexError
        ("", "no table of settings"),
        ("# nothing\n", "no table of settings"),
        ("{}", "no table of settings"),
    ],
    ids=["laughs", "alias", "large", "deep", "digits", "date", "int", "empty", "comment", "table"],
)
def test_a_hostile_settings_file_is_refused_at_once(tmp_path, text, naming):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(Ldr2hdrError, match=naming) as refused:
        read_yaml(path)
    assert str(path) in str(refused.value) and len(str(refused.value)) < 400 + len(str(path))
    assert time.monotonic() - began < 30


def test_settings_come_back_as_they_were_saved(tmp_path):
    settings = make_settings({"run": {"out": "a \udcff b", "seed": 7}, "data": {"folders": ["é", "–"]}})
    save_settings(settings, tmp_path / "settings.yaml")
    assert make_settings(settings_of_run(tmp_path / "settings.yaml")) == settings


@pytest.mark.parametrize("lines", [0, 1, 40])
def test_a_run_is_not_resumed_by_a_part_of_its_settings(tmp_path, lines):
    path = tmp_path / "settings.yaml"
    save_settings(Settings(), path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    with pytest.raises(Ldr2hdrError, match=r"settings\.yaml (holds no table|is damaged: it has no section)"):
        settings_of_run(path)
