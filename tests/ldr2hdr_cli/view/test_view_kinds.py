"""`ldr2hdr view` over results in other formats than EXR, and over sources that are not in sRGB."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.avif import write_avif
from tests.ldr2hdr_cli.view.test_view import Page, pictures, run


def convert(*words: object) -> None:
    run("convert", *words, "--method", "clip", "--no-preview")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    codes = np.tile(np.linspace(40, 200, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    codes[:, 48:] = 255
    Image.fromarray(codes).save(tmp_path / "a.jpg", quality=97, subsampling=0)
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("format", ["avif", "ultrahdr", "avif,hdr", "ultrahdr,exr"])
def test_results_in_every_format_look_as_their_source_where_nothing_is_clipped(photo: Path, format: str) -> None:
    out = photo.parent / "out"
    convert(photo, "-o", out, "--format", format, "--white", 100, "--exposure", 0.5)
    run("view", out)
    page = out / "ldr2hdr-view" / "index.html"
    (card,) = Page(page).all("article")
    assert "failed" not in str(card.get("class"))
    before, after = pictures(page, str(card["data-name"]), "before"), pictures(page, str(card["data-name"]), "after")
    for stop in (1, 2):
        assert np.abs(before[stop] - after[stop])[:, 4:40].mean() < 0.01
    assert ("peak of the display" in Page(page).text) == ("," not in format)


def test_films_are_left_to_players(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(2):
            picture = np.full((48, 64, 3), 80 + 30 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    convert(tmp_path / "clip.mkv", "-o", tmp_path / "both", "--format", "exr,prores", "--temporal", "off")
    assert "2 results" in run("view", tmp_path / "both") and "failed" not in run("view", tmp_path / "both")
    convert(tmp_path / "clip.mkv", "-o", tmp_path / "film", "--format", "prores", "--temporal", "off")
    done = CliRunner().invoke(app, ["view", str(tmp_path / "film")])
    assert done.exit_code != 0 and "holds films alone" in str(done.exception)


def test_a_source_in_pq_is_shown_beside_its_result(tmp_path: Path) -> None:
    light = np.tile(np.linspace(0.05, 0.9, 64, dtype=np.float32)[None, :, None], (48, 1, 3))
    light[:, 48:] = 3
    write_avif(tmp_path / "a.avif", light, quality=100)
    convert(tmp_path / "a.avif", "-o", tmp_path / "out", "--from-hdr")
    run("view", tmp_path / "out")
    page = tmp_path / "out" / "ldr2hdr-view" / "index.html"
    before, after = pictures(page, "a.exr", "before"), pictures(page, "a.exr", "after")
    assert np.abs(before[0] - after[0])[:, 2:46].max() < 0.03
    assert "cannot be read again" not in Page(page).text


def test_a_result_in_a_space_of_opencolorio_is_shown_in_its_colours(tmp_path: Path) -> None:
    pytest.importorskip("PyOpenColorIO")
    codes = np.full((32, 32, 3), (180, 90, 60), np.uint8)
    Image.fromarray(codes).save(tmp_path / "a.png")
    convert(tmp_path / "a.png", "-o", tmp_path / "out", "--ocio", "ocio://default", "--ocio-space", "ACEScg")
    run("view", tmp_path / "out")
    (after, *_) = pictures(tmp_path / "out" / "ldr2hdr-view" / "index.html", "a.exr", "after")
    assert np.abs(after * 255 - codes).max() < 5
