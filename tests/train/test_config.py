"""Settings: what is refused, and by which sentence."""

import time

import pytest

from model.errors import Ldr2hdrError
from model.settings import MAX_YAML
from train.config import Settings, make_settings, read_settings_of_run, read_yaml, save_settings


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("max_hours", 0, "greater than 0"),
        ("max_hours", -1.0, "greater than 0"),
        ("checkpoint_minutes", 0, "greater than 0"),
        ("seed", 99999999999, "0 to 4294967295"),
        ("seed", -1, "0 to 4294967295"),
        ("max_hours", 10**400, "a number"),
        ("max_steps", -(10**5000), "at least 1"),
    ],
    ids=range(7),  # pytest cannot write out a number of 5000 digits either
)
def test_a_number_out_of_its_bounds_is_refused(name, value, bound):
    with pytest.raises(Ldr2hdrError, match=rf"\Arun\.{name} is .*, but must be {bound}"):
        make_settings({"run": {name: value}})


def test_the_bounds_themselves_are_allowed():
    assert make_settings({"run": {"max_hours": 1e-3, "seed": 2**32 - 1}}).run.seed == 2**32 - 1


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
        make_settings(read_yaml(path))
    assert str(path) in str(refused.value) and len(str(refused.value)) < 400 + len(str(path))
    assert time.monotonic() - began < 30


def test_a_value_of_any_length_is_quoted_briefly(tmp_path):
    (tmp_path / "settings.yaml").write_text(f"run: {{seed: {list(range(9000))}}}\n")
    with pytest.raises(Ldr2hdrError, match=r"run\.seed is \[0, 1, .*\.\.\., but must be a whole number") as refused:
        make_settings(read_yaml(tmp_path / "settings.yaml"))
    assert len(str(refused.value)) < 200
    (tmp_path / "settings.yaml").write_text(f"run: {{seed: 0x{'f' * 9000}}}\n")
    with pytest.raises(Ldr2hdrError, match=r"run\.seed is something that cannot be shown, but must be 0 to"):
        make_settings(read_yaml(tmp_path / "settings.yaml"))


def test_settings_come_back_as_they_were_saved(tmp_path):
    settings = make_settings({"run": {"out": "a \udcff b", "seed": 7}, "data": {"folders": ["é", "–"]}})
    save_settings(settings, tmp_path / "settings.yaml")
    assert make_settings(read_settings_of_run(tmp_path / "settings.yaml")) == settings


@pytest.mark.parametrize("lines", [0, 1, 40])
def test_a_run_is_not_resumed_by_a_part_of_its_settings(tmp_path, lines):
    path = tmp_path / "settings.yaml"
    save_settings(Settings(), path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    with pytest.raises(Ldr2hdrError, match=r"settings\.yaml (holds no table|is damaged: it has no section)"):
        read_settings_of_run(path)
