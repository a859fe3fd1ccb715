"""Stills and clips through real encoders and decoders."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from ldr2hdr_cli.media.sources import find_inputs, parse_frames, probe, read_frames, read_still
from ldr2hdr_cli.media.timecode import advance
from model.errors import Ldr2hdrError


@pytest.mark.parametrize(
    ("start", "frames", "rate", "after"),
    [
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("01:00:00:24", 1, Fraction(25), "01:00:01:00"),
        ("23:59:59:23", 1, Fraction(24), "00:00:00:00"),
    ],
)
def test_timecode(start, frames, rate, after):
    assert advance(start, frames, rate) == after


def flat(path: Path, pixel_format: str, codes: tuple[int, int, int], **tags: int) -> Path:
    """Two lossless frames of one colour, its code values given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pixel_format
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(2):
            frame = av.VideoFrame(32, 16, pixel_format)
            for plane, code in zip(frame.planes, codes, strict=True):
                kind = np.uint16 if max(codes) > 255 else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, code, kind).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_matrix_range_and_depth_are_those_of_the_stream(tmp_path, matrix, kr, kb, full, bits):
    pixel_format = "yuv444p" if bits == 8 else "yuv444p10le"
    codes = tuple(code << (bits - 8) for code in (120, 110, 150))
    path = flat(tmp_path / "flat.mkv", pixel_format, codes, colorspace=matrix, color_range=2 if full else 1)
    top = 2**bits - 1
    scale = 2 ** (bits - 8)
    y, cb, cr = (
        (codes[0] / top, *((code - 128 * scale) / top for code in codes[1:]))
        if full
        else ((codes[0] / scale - 16) / 219, *((code / scale - 128) / 224 for code in codes[1:]))
    )
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    frame = next(read_frames(path))
    assert np.allclose(frame.pixels[8, 16], [red, green, blue], atol=0.5 / top)
    assert probe(path).bit_depth == bits and probe(path).full_range == full


def test_an_untagged_clip_says_what_is_assumed(tmp_path):
    notes = " ".join(probe(flat(tmp_path / "flat.mkv", "yuv444p", (100, 128, 128))).notes)
    assert "smpte170m is assumed" in notes and "limited is assumed" in notes


def test_pq_is_refused(tmp_path):
    with pytest.raises(Ldr2hdrError, match="HDR already"):
        next(read_frames(flat(tmp_path / "pq.mkv", "yuv444p10le", (500, 512, 512), color_trc=16)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # top left
    stored = {1: lambda a: a, 2: np.fliplr, 3: lambda a: a[::-1, ::-1], 4: np.flipud,
              5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
              8: lambda a: np.rot90(a, -1)}[orientation](upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    plate, frame = read_still(tmp_path / "a.png")
    assert (plate.width, plate.height) == (24, 16)
    assert np.array_equal(frame.pixels, upright / np.float32(255))


def test_16_bits_stay_16_bits(tmp_path):
    codes = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85
    tifffile.imwrite(tmp_path / "a.tif", codes, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey.tif", codes[..., 0])
    assert np.allclose(read_still(tmp_path / "a.tif")[1].pixels * 65535, codes, atol=0.01)
    assert np.allclose(read_still(tmp_path / "grey.tif")[1].pixels[..., 1] * 65535, codes[..., 0], atol=0.01)


def test_alpha_is_carried_and_palettes_are_looked_up(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    plate, frame = read_still(tmp_path / "a.png")
    assert plate.has_alpha and frame.alpha is not None
    assert np.array_equal(np.rint(frame.alpha * 255), rgba[..., 3])
    Image.fromarray(rgba[..., :3]).quantize(16).save(tmp_path / "p.png")
    assert read_still(tmp_path / "p.png")[1].pixels.shape == (8, 8, 3)


def test_a_cut_picture_is_an_error_and_never_grey(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(Ldr2hdrError, match=r"a\.jpg cannot be read whole"):
        read_still(tmp_path / "a.jpg")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (4000, 4000)).save(tmp_path / "bomb.png")
    with pytest.raises(Ldr2hdrError, match="--max-pixels"):
        read_still(tmp_path / "bomb.png", max_pixels=1_000_000)


def test_sequences_keep_their_numbers_and_come_in_order(tmp_path):
    for number in (101, 99, 1000):
        (tmp_path / f"plate.{number:04d}.png").touch()
    found = find_inputs([str(tmp_path / "plate.####.png")])
    assert [one.number for one in found] == [99, 101, 1000]
    assert [str(one.relative) for one in found] == ["plate.0099", "plate.0101", "plate.1000"]
    assert find_inputs([str(tmp_path / "plate.%04d.png")])[0].path == found[0].path


def test_a_directory_is_mirrored_and_a_loop_of_links_ends(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b10.jpg", "b2.jpg", "sub/c.png", ".hidden.jpg", "text.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert [str(one.relative) for one in find_inputs([str(tmp_path)])] == ["b2", "b10"]
    assert [str(one.relative) for one in find_inputs([str(tmp_path)], recursive=True)] == ["b2", "b10", "sub/c"]


def test_numbers_are_in_natural_order_in_any_script(tmp_path):
    """`²` and `①` are digits to `str.isdigit` that int() does not take; `٢` is 2."""
    for name in ("shot2.jpg", "shot10.jpg", "shot1²2.jpg", "①.jpg", "٢.jpg", "3.jpg", "03.jpg", "B.jpg", "a.jpg"):
        (tmp_path / name).touch()
    names = [one.path.name for one in find_inputs([str(tmp_path)])]
    assert names == ["①.jpg", "٢.jpg", "03.jpg", "3.jpg", "B.jpg", "a.jpg", "shot1²2.jpg", "shot2.jpg", "shot10.jpg"]
    found = find_inputs([str(tmp_path / "shot*.jpg")])
    assert [one.path.name for one in found] == ["shot1²2.jpg", "shot2.jpg", "shot10.jpg"]


@pytest.mark.parametrize("mark", ["%²d", "%99999d", "%0999d", "%" + "9" * 200 + "d"])
def test_a_sequence_of_absurd_width_is_not_there(tmp_path, mark):
    (tmp_path / "plate1.png").touch()
    with pytest.raises(Ldr2hdrError, match=r"no such file|no file of this sequence"):
        find_inputs([str(tmp_path / f"plate{mark}.png")])


@pytest.mark.skipif(sys.platform == "win32", reason="paths have another limit there")
@pytest.mark.parametrize("reach", [3900, 4200], ids=["file", "folder"])
def test_a_path_that_is_too_long_is_an_input_of_its_own_and_no_other_suffers(tmp_path, monkeypatch, reach):
    """Two ways to pass 4096 bytes: the file's own name does, or that of a folder on the way to it."""
    (tmp_path / "good.jpg").touch()
    monkeypatch.chdir(tmp_path)
    for _ in range(len(os.fsencode(tmp_path)), reach, 101):  # from within, since no such path can be given whole
        Path("d" * 100).mkdir()
        os.chdir("d" * 100)
    Path("x" * 240 + ".jpg").touch()
    monkeypatch.chdir(tmp_path)
    good, bad = sorted(find_inputs([str(tmp_path)], recursive=True), key=lambda one: len(str(one.path)))
    assert good.path.name == "good.jpg" and len(os.fsencode(bad.path)) > 4096
    with pytest.raises(Ldr2hdrError, match=r"cannot be opened|cannot be read"):
        probe(bad.path)


def test_frame_ranges():
    assert parse_frames("100-250") == (100, 250)
    assert parse_frames("7") == (7, 7) and parse_frames("7-") == (7, None)
    for nonsense in ("", "a-b", "9-1", "-5", "²", "9" * 5000):
        with pytest.raises(Ldr2hdrError):
            parse_frames(nonsense)
