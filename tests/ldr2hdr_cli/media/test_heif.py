"""HEIC and AVIF through real encoders: depth, turns, colour, alpha, tiles, sequences, and what cannot be read."""

import struct
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.media.colour import ADOBE_RGB, P3D65, REC2020
from ldr2hdr_cli.media.sources import find_inputs, probe, read_frames, read_still
from model.errors import Ldr2hdrError
from model.exposure import linearise

pillow_heif = pytest.importorskip("pillow_heif")

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """A ramp with a red corner at the top left and a blue one at the bottom left."""
    codes = np.tile(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    codes[:16, :16], codes[-16:, :16] = [255, 0, 0], [0, 0, 255]
    return codes


def heic(path: Path, codes: np.ndarray, **how) -> Path:
    image = Image.fromarray(codes)
    if "icc_profile" in how:
        image.info["icc_profile"] = how.pop("icc_profile")
    pillow_heif.from_pillow(image).save(path, **{**LOSSLESS, **how})
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_upright_whichever_way_it_was_held(tmp_path, orientation):
    """The encoder makes the container's turns and mirrors of EXIF's orientation, as phones do."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    image = pillow_heif.from_bytes("RGB", (32, 16), stored.tobytes())
    image.info["original_orientation"] = orientation
    image.save(tmp_path / "a.heic", exif=exif.tobytes(), **LOSSLESS)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    expected, found = read_still(tmp_path / "a.png"), read_still(tmp_path / "a.heic")
    assert (found[0].width, found[0].height) == (expected[0].width, expected[0].height)
    assert np.abs(found[1].pixels - expected[1].pixels).max() < 2.5 / 255
    assert probe(tmp_path / "a.heic") == found[0]


def test_ten_bits_are_kept_and_nclx_names_the_primaries(tmp_path):
    codes = np.tile(np.arange(0, 1024, 16, dtype=np.uint16)[None, :, None], (48, 1, 3))
    for primaries, known in ((12, P3D65), (9, REC2020)):
        image = pillow_heif.from_bytes("RGB;16", (64, 48), (codes << 6).tobytes())
        image.save(tmp_path / "a.heic", **LOSSLESS, color_primaries=primaries, transfer_characteristics=13)
        info, frame = read_still(tmp_path / "a.heic")
        assert (info.bit_depth, info.codec, info.chromaticities, info.transfer) == (10, "heif", known, "srgb")
        assert np.abs(frame.pixels * 1023 - codes).max() < 1.01


@pytest.mark.parametrize("gamma", [2.19921875, 1.0])
def test_the_primaries_and_the_curve_of_a_profile_are_kept(tmp_path, gamma):
    xyz = [0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1]
    icc = imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=xyz, gamma=gamma)
    info, frame = read_still(heic(tmp_path / "a.heic", corners(), icc_profile=icc))
    assert info.chromaticities == ADOBE_RGB and not info.notes and not info.assumed
    assert linearise(0.5, info.encoding.transfer, info.encoding.gamma) == pytest.approx(0.5**gamma, abs=1e-3)
    assert abs(frame.pixels[24, 32, 1] - 129 / 255) < 0.01


def test_alpha_and_grey(tmp_path):
    codes = np.dstack([corners(), np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))])
    info, frame = read_still(heic(tmp_path / "a.heic", codes))
    assert info.has_alpha and np.abs(frame.alpha * 255 - codes[..., 3]).max() < 1.01
    grey = corners()[..., 1].copy()
    info, frame = read_still(heic(tmp_path / "grey.heic", grey, matrix_coefficients=6))
    assert frame.pixels.shape == (48, 64, 3) and np.abs(frame.pixels * 255 - grey[..., None]).max() < 2.5


def test_tiles_are_put_together(tmp_path):
    codes = corners(160, 208)
    heic(tmp_path / "grid.heic", codes, tile_size=64)
    assert b"grid" in (tmp_path / "grid.heic").read_bytes()
    info, frame = read_still(tmp_path / "grid.heic")
    assert (info.width, info.height) == (208, 160)
    assert np.abs(frame.pixels * 255 - codes).max() < 1.01


def test_of_several_pictures_the_primary_one_is_read_and_a_bomb_is_refused(tmp_path):
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red"))
    file.add_from_pillow(Image.new("RGB", (64, 48), "white"))
    file.save(tmp_path / "two.heic", primary_index=1)
    info, frame = read_still(tmp_path / "two.heic")
    assert frame.pixels.min() > 0.98 and any("2 pictures" in note for note in info.notes)
    with pytest.raises(Ldr2hdrError, match="--max-pixels"):
        read_still(tmp_path / "two.heic", max_pixels=64 * 47)


def test_a_heic_is_known_by_its_first_bytes_too(tmp_path):
    heic(tmp_path / "a.heic", corners()).rename(tmp_path / "IMG_0001")
    (one,) = find_inputs([str(tmp_path)])
    assert one.kind == "still" and read_still(one.path)[0].codec == "heif"
    (tmp_path / "b.jpg").write_bytes((tmp_path / "IMG_0001").read_bytes())  # renamed by a phone's share sheet
    assert read_still(tmp_path / "b.jpg")[0].codec == "heif"


def test_a_cut_heic_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    data = heic(tmp_path / "a.heic", noise).read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(Ldr2hdrError, match=r"a\.heic cannot be read whole"):
        read_still(tmp_path / "a.heic")


def test_without_pillow_heif_it_says_what_to_install(tmp_path, monkeypatch):
    path = heic(tmp_path / "a.heic", corners())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(Ldr2hdrError, match=r"a\.heic is HEIF.*ldr2hdr\[heif\]"):
        read_still(path)


@pytest.mark.parametrize("bits", [10, 12])
def test_an_avif_of_more_than_8_bits_keeps_them(tmp_path, bits):
    codes = np.tile(np.linspace(0, 2**bits - 1, 64).astype(np.uint16)[None, :, None], (48, 1, 3))
    data = imagecodecs.avif_encode(codes, level=100, bitspersample=bits, pixelformat="444")
    (tmp_path / "a.avif").write_bytes(data)
    info, frame = read_still(tmp_path / "a.avif")
    assert info.bit_depth == bits and probe(tmp_path / "a.avif") == info
    assert np.abs(frame.pixels * (2**bits - 1) - codes).max() < 1.01


def test_a_sequence_in_avif_is_a_clip(tmp_path):
    pictures = [Image.new("RGB", (64, 48), (60 * index, 100, 100)) for index in range(4)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40, quality=100)
    (one,) = find_inputs([str(tmp_path)])
    assert one.kind == "video" and probe(one.path).frame_count == 4
    reds = [frame.pixels[24, 32, 0] * 255 for frame in read_frames(one.path)]
    assert np.allclose(reds, [0, 60, 120, 180], atol=6)


def test_a_sequence_in_heif_is_a_clip(clip, tmp_path):
    """An MP4 whose brand is that of an image sequence (ISO 23008-12, 7.3): the rest of such a file is the same."""
    luma = [np.full((48, 64), 50 * (index + 1), np.uint8) for index in range(3)]
    chroma = np.full((24, 32), 128, np.uint8)
    path = clip("a.mp4", [(one, chroma, chroma) for one in luma], codec="libx265", pixels="yuv420p")
    data = bytearray(path.read_bytes())
    assert data[4:8] == b"ftyp"
    data[8:12] = b"hevc"
    (tmp_path / "burst.heic").write_bytes(data)
    path.unlink()
    (one,) = find_inputs([str(tmp_path)])
    assert one.kind == "video" and sum(1 for _ in read_frames(one.path)) == 3


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.heic", b"no picture at all"),
        ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)),
        ("photo", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)),
        ("scan.dat", b"8BPS\0\x09" + bytes(50)),
        ("noname", struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"mif1") + bytes(60)),
        ("a.cr3", bytes(100)),
    ],
)
def test_what_looks_like_a_picture_in_a_folder_is_an_input_and_fails_by_its_name(tmp_path, name, data):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "notes.txt").write_text("BM, GIF and other words")
    (tmp_path / "BMW.txt").write_text("BMW is no bitmap")
    (tmp_path / name).write_bytes(data)
    found = {one.path.name: one for one in find_inputs([str(tmp_path)])}
    assert found.keys() == {"good.png", name} and found[name].kind == "still"
    with pytest.raises(Ldr2hdrError, match=name.replace(".", r"\.")):
        read_still(found[name].path)
