"""`--log-file`: what it holds after a run, and what becomes of a run that cannot write it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app

RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:[+-]\d\d:\d\d) (INFO|WARNING|ERROR) (.*)")


def convert(*arguments, says: int = 0) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments), "--method", "clip"])
    assert done.exit_code == says, done.output
    return " ".join(done.output.split())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(path)
    return path


def test_every_record_has_its_time_and_level_and_a_second_run_is_appended(photo, tmp_path):
    log = tmp_path / "job.log"
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        convert(tmp_path, "-o", tmp_path / "out", "--log-file", log, says=1)
    records = [RECORD.fullmatch(line) for line in log.read_text().splitlines()]
    assert all(records)
    said = [(match[1], match[2].split()[0]) for match in records if match]
    begin, end = [("INFO", "ldr2hdr"), ("ERROR", "failed")], [("INFO", "summary"), ("INFO", "To")]
    run = [*begin, ("WARNING", "note"), ("INFO", "done"), *end]  # of what the picture does not say of its colour
    assert said == [*run, *begin, ("INFO", "skipped"), *end]


def test_a_traceback_is_indented_and_no_text_passes_for_a_record(photo, tmp_path, monkeypatch):
    def fault(*_, **__):
        raise ZeroDivisionError("\x1b[31mred\n2026-01-01T00:00:00.000+00:00 INFO all is well")

    monkeypatch.setattr("ldr2hdr_cli.convert.operators.expand", fault)
    log = tmp_path / "job.log"
    photo.rename(tmp_path / "a\n2026-01-01T00:00:00.000+00:00 INFO b.png")
    convert(tmp_path, "-o", tmp_path / "out", "--log-file", log, says=1)
    lines = log.read_text().splitlines()
    records = [match for line in lines if (match := RECORD.fullmatch(line))]
    assert [match[2].split()[0] for match in records] == ["ldr2hdr", "note", "failed", "summary", "To"]
    rest = [line for line in lines if not RECORD.fullmatch(line)]
    assert rest[0] == "    Traceback (most recent call last):" and all(line.startswith("    ") for line in rest)
    assert any("ZeroDivisionError" in line for line in rest) and "\x1b" not in log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_log_is_said_once_and_ends_nothing(photo, tmp_path):
    said = convert(photo, "-o", tmp_path / "out", "--log-file", "/dev/full")
    assert said.count("The log file cannot be written any more (No space left on device)") == 1
    assert "Traceback" not in said and (tmp_path / "out" / "photo.exr").is_file()
