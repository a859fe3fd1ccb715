"""HDR pictures through real encoders: names, limits, damage."""

import struct
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import tifffile

from ldr2hdr_cli.media.exr import write_exr
from ldr2hdr_cli.media.pictures import read_hdr
from ldr2hdr_cli.media.radiance import read_radiance, write_radiance
from model.errors import Ldr2hdrError


def scene(height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.25, 1, (height, width, 3)).astype(np.float32) * 8


def write(path: Path, picture: np.ndarray) -> Path:
    if path.suffix == ".exr":
        write_exr(path, picture, half=False)
    elif path.suffix == ".tif":
        with path.open("wb") as file:
            tifffile.imwrite(file, picture, photometric="rgb")
    else:
        write_radiance(path, picture, {})
    return path


@pytest.mark.parametrize("suffix", [".hdr", ".exr", ".tif"])
def test_a_name_that_is_not_utf_8_is_read_as_any_other(tmp_path, suffix):
    try:
        path = write(tmp_path / f"sun\udcff{suffix}", scene())
    except OSError:
        pytest.skip("this file system takes no such name")
    # One exponent a pixel: exact to 1/256 of its brightest channel.
    assert np.abs(read_hdr(path) - scene()).max() <= (8 / 256 if suffix == ".hdr" else 0)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 200, 32768])
def test_radiance_comes_back_in_both_of_its_forms(tmp_path, width):
    """Run lengths from 8 to 32767 pixels a line, plain ones beyond; noise, which grows under run lengths, and flats."""
    picture = scene(3, width)
    picture[1] = 0.5
    write_radiance(tmp_path / "a.hdr", picture, {"ldr2hdr/source": "a: b"})
    pixels, variables = read_radiance(tmp_path / "a.hdr")
    assert np.abs(pixels - picture).max() <= 8 / 256 and (pixels[1] == 0.5).all()
    assert variables["ldr2hdr/source"] == "a: b" and variables["SOFTWARE"].startswith("ldr2hdr")


def test_radiance_by_hand(tmp_path):
    """(128, 64, 32) and the exponent 129: 128 · 2^(129 − 136) = 1, a half, a quarter. FORMAT need not be last."""
    header = b"#?RGBE\n# a comment\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=1\n\n-Y 1 +X 2\n"
    (tmp_path / "a.pic").write_bytes(header + bytes([128, 64, 32, 129]) * 2)
    assert (read_hdr(tmp_path / "a.pic") == [[[1, 0.5, 0.25]] * 2]).all()


GOOD = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes([128, 64, 32, 129]) * 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not Radiance"),
        (b"#?RADIANCE\n" * 10**5, "is not Radiance"),
        (GOOD.replace(b"-Y 2", b"+Y 2"), "is not Radiance RGBE stored from the top"),
        (GOOD.replace(b"rgbe\n", b"xyze\n"), "is not Radiance RGBE"),
        (GOOD.replace(b"-Y 2 +X 2", b"-Y 99999 +X 99999"), "99999×99999 pixels"),
        (GOOD.replace(b"-Y 2 +X 2", b"-Y 9999999999 +X 1"), "is not Radiance"),
        (GOOD[:-1], "damaged or cut off"),
        (GOOD.replace(b"+X 2", b"+X 8"), "damaged or cut off"),
    ],
)
def test_radiance_that_is_none_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "a.hdr"
    path.write_bytes(content)
    with pytest.raises(Ldr2hdrError, match=said) as caught:
        read_hdr(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_exr_that_claims_more_than_the_limit_is_refused_from_its_header(tmp_path):
    write_exr(tmp_path / "a.exr", scene())
    data = (tmp_path / "a.exr").read_bytes()
    for name in (b"dataWindow\0box2i\0\x10\0\0\0", b"displayWindow\0box2i\0\x10\0\0\0"):
        at = data.index(name) + len(name)
        data = data[:at] + struct.pack("<4i", 0, 0, 29999, 29999) + data[at + 16 :]
    (tmp_path / "a.exr").write_bytes(data)
    with pytest.raises(Ldr2hdrError, match="30000×30000 pixels"):
        read_hdr(tmp_path / "a.exr")


def test_every_part_and_channel_of_an_exr_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("ldr2hdr_cli.media.pictures.MAX_PIXELS", 16 * 24 * 4)
    part = OpenEXR.Part({"name": "beauty"}, {"RGB": scene()})
    more = OpenEXR.Part({"name": "more"}, {f"mask.{number}": scene()[..., 0].copy() for number in range(20)})
    OpenEXR.File([part]).write(str(tmp_path / "one.exr"))
    assert read_hdr(tmp_path / "one.exr").shape == (16, 24, 3)
    OpenEXR.File([part, more]).write(str(tmp_path / "two.exr"))
    with pytest.raises(Ldr2hdrError, match="24×16 pixels of 20 samples"):
        read_hdr(tmp_path / "two.exr")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ImageDepth": 4000}, "volume of 4000 slices"),
        ({"SamplesPerPixel": 60000, "ImageWidth": 1000, "ImageLength": 1000}, "1000×1000 pixels of 60000 samples"),
        ({"ImageWidth": 60000, "ImageLength": 60000}, "60000×60000 pixels"),
        ({"TileWidth": 60000, "TileLength": 60000}, "60000×60000 pixels"),
    ],
)
def test_a_tiff_that_claims_more_than_the_limit_is_refused_from_its_header(tmp_path, tags, said):
    path = tmp_path / "a.tif"
    options = {"tile": (16, 16)} if "TileWidth" in tags else {}
    tifffile.imwrite(path, scene(), photometric="rgb", extratags=[(65000, "I", 1, 1, False)], **options)
    imagedepth = struct.pack("<HHII", 32997, 4, 1, 1)  # of SGI's volumes; tifffile writes it in none but those
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 65000, 4, 1, 1), imagedepth))
    assert (read_hdr(path) == scene()).all()
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in tags.items():
            file.pages[0].tags[name].overwrite(value)
    with pytest.raises(Ldr2hdrError, match=said):
        read_hdr(path)


def test_the_first_page_of_a_tiff_is_read_and_its_planes_are_joined(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(scene(), 2, 0))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    assert (read_hdr(tmp_path / "planes.tif") == scene()).all()
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([scene(), 2 * scene()]), photometric="rgb")
    assert (read_hdr(tmp_path / "pages.tif") == scene()).all()
