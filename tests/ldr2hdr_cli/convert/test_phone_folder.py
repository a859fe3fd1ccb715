"""A folder as it comes from a phone or a camera: what is converted, what fails by name, and how results are called."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app

pillow_heif = pytest.importorskip("pillow_heif")


def heic(path: Path) -> None:
    pillow_heif.from_pillow(Image.fromarray(np.full((48, 64, 3), 128, np.uint8))).save(path)


def convert(folder: Path, out: Path) -> tuple[int, list[dict]]:
    """Exit status, and events."""
    done = CliRunner().invoke(app, ["convert", str(folder), "-o", str(out), "--method", "clip", "--json"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def names(events: list[dict], kind: str) -> list[str]:
    return sorted(Path(event["source"]).name for event in events if event["event"] == kind)


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "DCIM"
    place.mkdir()
    return place


def test_a_folder_of_heics_without_the_extra_never_ends_as_done(folder, tmp_path, monkeypatch):
    Image.new("RGB", (64, 48)).save(folder / "screenshot.png")
    for name in ("IMG_1.HEIC", "IMG_2.HEIC", "IMG_3.HEIC"):
        heic(folder / name)
    (folder / "IMG_3.HEIC").rename(folder / "IMG_3.jpg")  # known by its first bytes
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        status, events = convert(folder, tmp_path / "out")
    assert status == 1 and names(events, "done") == ["screenshot.png"]
    assert names(events, "failed") == ["IMG_1.HEIC", "IMG_2.HEIC", "IMG_3.jpg"]
    assert all("ldr2hdr[heif]" in event["message"] for event in events if event["event"] == "failed")
    status, events = convert(folder, tmp_path / "out")
    assert status == 0 and len(names(events, "done")) == 3


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(folder, tmp_path):
    heic(folder / "a.heic")
    (folder / "b.heic").write_bytes((folder / "a.heic").read_bytes()[:300])
    (folder / "c.jxl").write_bytes(b"\xff\x0a" + bytes(100))
    (folder / "d.nef").write_bytes(b"MM\0*" + bytes(100))
    (folder / "e").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (folder / "notes.txt").write_text("none of these")
    status, events = convert(folder, tmp_path / "out")
    assert status == 1 and names(events, "done") == ["a.heic"]
    assert names(events, "failed") == ["b.heic", "c.jxl", "d.nef", "e"]


def test_the_clip_of_a_live_photo_is_a_clip_beside_its_picture(folder, tmp_path, clip):
    """IMG_1.exr, and IMG_1/IMG_1.000001.exr: nothing collides. A JPEG of the same name does, and says so."""
    heic(folder / "IMG_1.HEIC")
    luma, chroma = np.full((48, 64), 100, np.uint8), np.full((24, 32), 128, np.uint8)
    clip("DCIM/IMG_1.MOV", [(luma, chroma, chroma)] * 2, codec="libx264", pixels="yuv420p")
    status, events = convert(folder, tmp_path / "out")
    assert status == 0 and names(events, "done") == ["IMG_1.HEIC", "IMG_1.MOV", "IMG_1.MOV"]
    assert (tmp_path / "out" / "IMG_1.exr").exists() and (tmp_path / "out" / "IMG_1" / "IMG_1.000002.exr").exists()
    Image.new("RGB", (64, 48)).save(folder / "IMG_1.JPG")
    status, events = convert(folder, tmp_path / "again")
    assert status == 0 and {"IMG_1.HEIC.exr", "IMG_1.JPG.exr"} <= {one.name for one in (tmp_path / "again").iterdir()}
    assert any("share names" in event.get("message", "") for event in events)
