"""Photographs as training reads them: their values, and what is left out."""

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, features

from ldr2hdr_cli.media.pictures import find_pictures, read_photo
from model.errors import Ldr2hdrError

RAMP = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP // 3], -1)


def write_grey_png(path: Path) -> None:
    cv2.imwrite(str(path), RAMP)


def write_colour_png(path: Path) -> None:
    cv2.imwrite(str(path), COLOUR[..., ::-1])


def write_grey_tiff(path: Path) -> None:
    tifffile.imwrite(path, RAMP)


def write_big_endian_tiff(path: Path) -> None:
    tifffile.imwrite(path, RAMP, byteorder=">")


def write_colour_tiff(path: Path) -> None:
    tifffile.imwrite(path, COLOUR, photometric="rgb")


@pytest.mark.parametrize(
    ("name", "write", "codes"),
    [
        ("grey.png", write_grey_png, RAMP),
        ("grey.tif", write_grey_tiff, RAMP),
        ("big.tif", write_big_endian_tiff, RAMP),
        ("colour.png", write_colour_png, COLOUR),
        ("colour.tif", write_colour_tiff, COLOUR),
    ],
)
def test_a_photograph_of_16_bits_keeps_its_greys(tmp_path, name, write, codes):
    write(tmp_path / name)
    photo = read_photo(tmp_path / name)
    wanted = codes if codes.ndim == 3 else np.repeat(codes[..., None], 3, 2)
    assert photo.shape == (6, 8, 3) and photo.dtype == np.float32
    assert np.abs(photo - wanted / 65535).max() < 1 / 255  # Pillow keeps the upper 8 bits of colour


def test_a_grey_photograph_of_16_bits_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # its right side is the top: to be turned by 90° clockwise
    Image.fromarray(RAMP).save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(read_photo(tmp_path / "turned.png")[..., 0], np.rot90(RAMP, -1) / 65535)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_picture_of_32_bits_has_no_known_white_and_is_refused(tmp_path, kind):
    tifffile.imwrite(tmp_path / "deep.tif", RAMP.astype(kind))
    with pytest.raises(Ldr2hdrError, match=r"deep\.tif has pixels of 32 bits"):
        read_photo(tmp_path / "deep.tif")


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_every_kind_of_broken_avif_is_a_picture_error(tmp_path):
    path = tmp_path / "photo.avif"
    Image.fromarray(np.uint8(COLOUR // 257)).resize((48, 48)).save(path, quality=60)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 4):  # one of them makes the decoder raise a RuntimeError, others a SyntaxError
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_photo(path)
        except Ldr2hdrError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 10


def test_what_a_decoder_cannot_allocate_is_a_picture_error(tmp_path, monkeypatch):
    write_colour_png(tmp_path / "a.png")

    def full(*_arguments):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(Ldr2hdrError, match="does not fit into memory"):
        read_photo(tmp_path / "a.png")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, recwarn):
    data = bytearray(cv2.imencode(".png", RAMP)[1].tobytes())
    data[16:24] = (40_000).to_bytes(4, "big") * 2  # its width and height
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(Ldr2hdrError, match=r"bomb\.png"):
        read_photo(tmp_path / "bomb.png")
    assert not recwarn.list


def test_hidden_folders_and_files_are_not_searched_but_a_hidden_folder_that_is_named_is(tmp_path):
    for name in ("a.png", ".b.png", "sub/c.png", ".thumbnails/d.png", "sub/.cache/deep/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_colour_png(tmp_path / name)
    assert find_pictures([tmp_path], "photo") == [tmp_path / "a.png", tmp_path / "sub" / "c.png"]
    assert find_pictures([tmp_path / ".thumbnails"], "photo") == [tmp_path / ".thumbnails" / "d.png"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX: paths of over 4096 bytes can be made step by step")
def test_a_path_that_is_too_long_does_not_refuse_the_others(tmp_path):
    write_colour_png(tmp_path / "a.png")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        here, before = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
        os.close(before)
    os.close(here)
    try:
        assert find_pictures([tmp_path], "photo") == [tmp_path / "a.png"]
    finally:
        remove_deep(tmp_path)


def remove_deep(folder: Path) -> None:
    """pytest could not: the deepest folders are only reached step by step."""
    here = os.open(folder, os.O_RDONLY)
    steps = [here]
    while "d" * 250 in os.listdir(steps[-1]):  # noqa: PTH208 (a descriptor)
        steps.append(os.open("d" * 250, os.O_RDONLY, dir_fd=steps[-1]))
    for inner, outer in zip(reversed(steps), reversed(steps[:-1]), strict=False):
        os.close(inner)
        os.rmdir("d" * 250, dir_fd=outer)
    os.close(here)
