"""What scripts and manuals rely on: the words of every `--help`, and the lines of `convert --json`.

After a change that is meant, `make snapshots` writes the files in `snapshots/` anew; read their diff.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from model import __version__
from tests.conftest import write_clip

SNAPSHOTS = Path(__file__).with_name("snapshots")
ROOT = Path(__file__).resolve().parents[2]


def same(name: str, text: str) -> None:
    """Compares with what is stored; with SNAPSHOTS=write, stores it."""
    path = SNAPSHOTS / name
    if os.environ.get("SNAPSHOTS") == "write":
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing: run `make snapshots`"
    stored = path.read_text(encoding="utf-8")
    assert text.splitlines() == stored.splitlines(), "if that is meant, run `make snapshots` and read the diff"


@pytest.fixture
def ldr2hdr(monkeypatch):
    """ldr2hdr(*arguments) → its output, in a wide terminal without colours, whatever the developer's is."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", None, raising=False)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", None, raising=False)
    plain = {"COLUMNS": "1000", "NO_COLOR": "1", "FORCE_COLOR": None}

    def run(*arguments: object) -> str:
        words = list(map(str, arguments))
        monkeypatch.setattr(sys, "argv", ["ldr2hdr", *words])
        return CliRunner().invoke(app, words, prog_name="ldr2hdr", env=plain).output

    return run


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*words, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def plain(text: str) -> str:
    """Help without its layout: a line for each option, with its names, its own metavar, bounds, help and default.

    What one Typer calls <int range>, another INTEGER RANGE and a third nothing goes, and so do the brackets around
    choices and arguments; arguments are written in capitals.
    """
    types = r"(?:<[a-zA-Z]+(?:\[[a-zA-Z]+\]| range)?>|(?:INTEGER|FLOAT)(?: RANGE)?|TEXT|PATH|BOOLEAN)(?: |$)"
    lines, panel = [], ""
    for line in text.splitlines():
        is_title = line.startswith("╭")
        line = " ".join(re.sub("[│╭╮╰╯─]", " ", line).split())
        panel = line if is_title else panel
        if not line or "completion" in line:
            continue
        if line.startswith("Usage:"):
            line = re.sub(r"[\[\]{}.]", "", line).upper()
        elif panel == "Arguments" and not is_title:
            line = re.sub(r"^(\* )?(?:[a-z_]+ (?=(?!PATH )[A-Z\[{]))?", r"\1", line)  # `inputs INPUT`
            line = re.sub(r"^((?:\* )?\S+ )" + types, r"\1", line)
            line = re.sub(r"^((?:\* )?)(\S+)", lambda found: found[1] + found[2].strip("[]{}.").upper(), line)
        line = re.sub(r"^((?:\* )?(?:-[^ ]+ )+)" + types, r"\1", line).strip()
        lines.append(re.sub(r"[<\[]((?:[\w.-]+\|)+[\w.-]+)[>\]]", r"\1", line))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_says_what_it_said(ldr2hdr, words):
    same(f"{'-'.join(('help', *words))}.txt", plain(ldr2hdr(*words, "--help")))


def test_no_snapshot_is_of_a_command_that_has_gone():
    assert {path.name for path in SNAPSHOTS.glob("help*.txt")} == {
        f"{'-'.join(('help', *one))}.txt" for one in COMMANDS
    }


def test_json_says_what_it_said(ldr2hdr, tmp_path):
    """A photograph, a clip and a broken link; the same again; a dry run; nothing there."""
    values = np.zeros((8, 16, 3), np.uint8)
    values[:2] = 255
    Image.fromarray(values).save(tmp_path / "photo.png")
    write_clip(tmp_path / "clip.mkv", [values] * 2, pixels="bgr0", layout="rgb24")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    convert = ("convert", tmp_path, "-o", tmp_path / "out", "--method", "clip", "--json")
    runs = [ldr2hdr(*convert), ldr2hdr(*convert), ldr2hdr(*convert, "--dry-run")]
    runs.append(ldr2hdr("convert", tmp_path / "gone.png", "-o", tmp_path / "out", "--json"))
    events = [
        json.loads(line, parse_constant=pytest.fail)
        for run in runs
        for line in run.splitlines()
        if line.startswith("{")
    ]
    for event in events:
        for key in event:
            assert re.fullmatch("[a-z][a-z0-9_]*", key)
            if key.split("_")[-1] in ("seconds", "second"):
                assert isinstance(event[key], float) and event[key] >= 0
                event[key] = 0.0
        if event["event"] == "header":
            assert event["version"] == __version__
            event["version"] = "VERSION"
        if "sha256" in event:
            assert re.fullmatch("[0-9a-f]{64}", event["sha256"])
            event["sha256"] = "SHA256"
    text = "".join(json.dumps(event) + "\n" for event in events)
    same("convert.jsonl", text.replace(json.dumps(str(tmp_path))[1:-1], "FOLDER").replace("\\\\", "/"))


def test_every_event_and_key_is_in_the_manual():
    manual = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    events = [json.loads(line) for line in (SNAPSHOTS / "convert.jsonl").read_text(encoding="utf-8").splitlines()]
    for event in events:
        (section,) = re.findall(rf"^## `{event['event']}`\n(.*?)(?=^## |\Z)", manual, re.DOTALL | re.MULTILINE)
        assert set(event) - {"event"} <= set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)), event["event"]
