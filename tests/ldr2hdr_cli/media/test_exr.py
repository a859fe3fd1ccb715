"""EXR and Radiance files, read back by FFmpeg and by a header parser of the test's own."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import OpenEXR
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldr2hdr_cli.media.exr import (
    COMPRESSIONS,
    frame_attributes,
    parse_timecode,
    read_exr,
    read_planes,
    write_exr,
)
from ldr2hdr_cli.media.radiance import write_radiance
from model.errors import Ldr2hdrError

REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
LOSSLESS_HALF = ("zip", "zips", "piz", "pxr24", "rle", "none")


def picture(height=37, width=53, seed=1):
    """Smooth light with a bright disc and a little noise: what compressors meet."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = 0.2 + 0.5 * x / width + 40.0 * (np.hypot(y - 12, x - 20) < 6)
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    return (light[..., None] * np.float32([1.0, 0.8, 0.5]) + 0.01 * noise).astype(np.float32)


def ffmpeg_pixels(path):
    """H×W×3 or ×4 as FFmpeg decodes it. Its planes as they are: its conversion from half to float clips at 1.0."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name in ("gbrpf32le", "gbrapf32le", "gbrpf16le", "gbrapf16le")
    kind = np.dtype("<f4" if "f32" in frame.format.name else "<f2")
    planes = [
        np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)[:, : plane.width]
        for plane in frame.planes
    ]
    return np.stack([planes[place] for place in (2, 0, 1, 3)[: len(planes)]], axis=-1).astype(np.float32)


def names_in(directory):
    return [path.name for path in directory.iterdir()]


def header_bytes(path):
    """Attributes of a single-part EXR: name → (type, bytes), by the file layout in OpenEXR's documentation."""
    data = path.read_bytes()
    assert struct.unpack_from("<I", data)[0] == 20000630
    assert data[4] == 2
    place, found = 8, {}
    while data[place]:
        name_end = data.index(b"\0", place)
        type_end = data.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<i", data, type_end + 1)
        start = type_end + 5
        found[data[place:name_end].decode()] = (data[name_end + 1 : type_end].decode(), data[start : start + size])
        place = start + size
    return found


def attributes(**changes):
    given_attributes = {
        "labels": {"chromaticities": REC709, "colorInteropID": "lin_rec709_scene"},
        "frame_rate": Fraction(30000, 1001),
        "timecode": "01:02:03;04",
        "pixel_aspect": 1.5,
        "source": "/somewhere/plate [a].mov",
        "frame_number": 7,
        "weights_sha256": "0f" * 32,
        "settings": {"transfer": "gamma", "gamma": "2.0"},
        "seconds": 3600.123456,
    }
    return frame_attributes(**(given_attributes | changes))


@pytest.mark.parametrize("compression", LOSSLESS_HALF)
def test_half_is_read_by_ffmpeg_as_the_nearest_half(tmp_path, compression):
    pixels = picture()
    assert write_exr(tmp_path / "a.exr", pixels, compression=compression) == 0
    np.testing.assert_array_equal(ffmpeg_pixels(tmp_path / "a.exr"), pixels.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("compression", ("zip", "zips", "piz", "rle", "none"))
def test_float_is_read_by_ffmpeg_bit_for_bit(tmp_path, compression):
    pixels = picture()
    write_exr(tmp_path / "a.exr", pixels, half=False, compression=compression)
    np.testing.assert_array_equal(ffmpeg_pixels(tmp_path / "a.exr"), pixels)


@pytest.mark.parametrize("compression", ("b44", "dwaa", "dwab"))
def test_lossy_compressions_stay_close(tmp_path, compression):
    pixels = picture()
    write_exr(tmp_path / "a.exr", pixels, compression=compression)
    for found in (read_exr(tmp_path / "a.exr")[0], ffmpeg_pixels(tmp_path / "a.exr")):
        assert np.median(np.abs(found - pixels) / pixels) < 0.03


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_header_names_the_compression(tmp_path, compression):
    # Numbers of the attribute type `compression` in OpenEXR's file layout.
    numbers = {"none": 0, "rle": 1, "zips": 2, "zip": 3, "piz": 4, "pxr24": 5, "b44": 6, "dwaa": 8, "dwab": 9}
    write_exr(tmp_path / "a.exr", picture(), compression=compression)
    assert header_bytes(tmp_path / "a.exr")["compression"] == ("compression", bytes([numbers[compression]]))


def test_dwa_level_trades_size_for_loss(tmp_path):
    pixels = picture(128, 128)
    for level in (5.0, 300.0):
        write_exr(tmp_path / f"{level}.exr", pixels, compression="dwaa", dwa_level=level)
    assert (tmp_path / "300.0.exr").stat().st_size < (tmp_path / "5.0.exr").stat().st_size


def test_alpha_is_multiplied_into_the_colour_unless_it_is_to_be_straight(tmp_path):
    pixels = picture()
    alpha = (np.arange(37 * 53).reshape(37, 53) % 256 / 255).astype(np.float32)
    for premultiply, word in ((True, b"premultiplied"), (False, b"straight")):
        write_exr(tmp_path / "a.exr", pixels, alpha, premultiply=premultiply)
        found = ffmpeg_pixels(tmp_path / "a.exr")
        wanted = pixels * alpha[..., None] if premultiply else pixels
        np.testing.assert_array_equal(found[..., :3], wanted.astype(np.float16))
        np.testing.assert_array_equal(np.rint(found[..., 3] * 255), np.rint(alpha * 255))
        assert header_bytes(tmp_path / "a.exr")["ldr2hdr/alpha"] == ("string", word)
        assert read_exr(tmp_path / "a.exr")[1] == ["R", "G", "B", "A"]


def test_values_beyond_half_are_clamped_and_counted(tmp_path):
    pixels = np.full((2, 2, 3), 65504.0, np.float32)
    pixels[0, 0] = 65505, 1e9, np.inf
    assert write_exr(tmp_path / "half.exr", pixels) == 3
    assert write_exr(tmp_path / "float.exr", pixels, half=False) == 0
    np.testing.assert_array_equal(ffmpeg_pixels(tmp_path / "half.exr"), np.full((2, 2, 3), 65504.0))
    np.testing.assert_array_equal(ffmpeg_pixels(tmp_path / "float.exr"), pixels)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixels=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        elements=st.floats(0, 2.0**100, width=32),
    ),
    half=st.booleans(),
    compression=st.sampled_from(("zip", "zips", "piz", "rle", "none")),
)
def test_round_trip(tmp_path, pixels, half, compression):
    write_exr(tmp_path / "a.exr", pixels, half=half, compression=compression)
    found, names, _ = read_exr(tmp_path / "a.exr")
    expected = np.minimum(pixels, 65504).astype(np.float16).astype(np.float32) if half else pixels
    np.testing.assert_array_equal(found, expected)
    assert names == ["R", "G", "B"]


def test_attributes_in_the_bytes_of_the_header(tmp_path):
    write_exr(tmp_path / "a.exr", picture(), attributes=attributes())
    found = header_bytes(tmp_path / "a.exr")
    kind, data = found["chromaticities"]
    assert kind == "chromaticities"
    assert struct.unpack("<8f", data) == pytest.approx(REC709)
    kind, data = found["framesPerSecond"]
    assert (kind, struct.unpack("<iI", data)) == ("rational", (30000, 1001))
    kind, data = found["pixelAspectRatio"]
    assert (kind, struct.unpack("<f", data)) == ("float", (1.5,))
    # SMPTE 12M packing: two BCD digits a field from the low bits up: frames, drop-frame bit 6, seconds, minutes, hours.
    kind, data = found["timeCode"]
    assert (kind, struct.unpack("<II", data)) == ("timecode", (0x01020344, 0))
    assert found["colorInteropID"] == ("string", b"lin_rec709_scene")
    assert found["software"] == ("string", b"ldr2hdr 0.1.0")
    assert found["ldr2hdr/version"] == ("string", b"0.1.0")
    assert found["ldr2hdr/weights"] == ("string", b"0f" * 32)
    assert found["ldr2hdr/source"] == ("string", b"plate [a].mov")
    assert found["ldr2hdr/frame"] == ("string", b"7")
    assert found["ldr2hdr/settings"] == ("string", b'{"gamma": "2.0", "transfer": "gamma"}')
    assert found["ldr2hdr/seconds"] == ("string", b"3600.123456")


def test_a_still_has_no_clip_attributes():
    found = attributes(frame_rate=None, timecode=None, frame_number=None, seconds=None)
    assert not {"framesPerSecond", "timeCode", "ldr2hdr/frame", "ldr2hdr/seconds"} & set(found)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("00:00:00:00", (0, 0, 0, 0, False)),
        ("23:59:59:29", (23, 59, 59, 29, False)),
        ("10:00:00;02", (10, 0, 0, 2, True)),
        ("10:00:00.02", (10, 0, 0, 2, True)),
    ],
)
def test_timecodes(text, fields):
    code = parse_timecode(text)
    assert (code.hours, code.minutes, code.seconds, code.frame, bool(code.dropFrame)) == fields


@pytest.mark.parametrize("text", ["", "1:2", "24:00:00:00", "00:60:00:00", "00:00:00:75", "00:00:00:119", "abc"])
def test_what_is_no_exr_timecode_is_kept_as_text(text):
    assert parse_timecode(text) is None
    found = attributes(timecode=text)
    assert "timeCode" not in found
    assert found["ldr2hdr/timecode"] == text


def test_the_same_frame_gives_the_same_bytes(tmp_path):
    for name in ("a.exr", "b.exr"):
        write_exr(tmp_path / name, picture(200, 200), attributes=attributes())
    assert (tmp_path / "a.exr").read_bytes() == (tmp_path / "b.exr").read_bytes()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of file size are POSIX")
    write_exr(tmp_path / "a.exr", picture())
    before = (tmp_path / "a.exr").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Ldr2hdrError, match=r"a\.exr cannot be written"):
            write_exr(tmp_path / "a.exr", picture(seed=2), half=False, compression="none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == ["a.exr"]
    assert (tmp_path / "a.exr").read_bytes() == before


def test_an_interrupted_rename_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        assert [name[0] + name[-4:] for name in names_in(tmp_path)] == ["..tmp"]
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_exr(tmp_path / "a.exr", picture())
    assert names_in(tmp_path) == []


def test_unusable_places_are_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "missing" / "a.exr", tmp_path / "file" / "a.exr"):
        with pytest.raises(Ldr2hdrError, match="cannot be written"):
            write_exr(place, picture())


@pytest.mark.parametrize("kept", [0, 4, 100, 500, 2000, -7])
def test_a_damaged_file_is_refused(tmp_path, kept):
    write_exr(tmp_path / "a.exr", picture())
    whole = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "a.exr").write_bytes(whole[:kept])
    with pytest.raises(Ldr2hdrError, match="damaged"):
        read_exr(tmp_path / "a.exr")
    with pytest.raises(Ldr2hdrError, match="does not exist"):
        read_exr(tmp_path / "none.exr")


def test_a_name_that_is_not_utf_8_is_read_too(tmp_path):
    path = tmp_path / os.fsdecode(b"plate\xff.exr")
    try:
        write_exr(path, picture())
    except Ldr2hdrError:
        pytest.skip("this file system has no such names")
    np.testing.assert_array_equal(read_exr(path)[0], picture().astype(np.float16))


def test_what_asks_for_too_much_is_refused_before_a_pixel_is_decoded(tmp_path):
    values = 37 * 53 * 3
    write_exr(tmp_path / "a.exr", picture())
    assert len(read_planes(tmp_path / "a.exr", max_values=values)[0]) == 3
    parts = [
        OpenEXR.Part({"name": name, "type": OpenEXR.scanlineimage}, {"Z": np.zeros((64, 64), np.float32)})
        for name in ("one", "two")
    ]
    OpenEXR.File(parts).write(str(tmp_path / "parts.exr"))
    data = bytearray((tmp_path / "a.exr").read_bytes())
    data[-1000:] = bytes(1000)  # decoding it would find this
    (tmp_path / "b.exr").write_bytes(data)
    for name, most in (("a", values - 1), ("b", values - 1), ("parts", 2 * 64 * 64 - 1)):
        with pytest.raises(Ldr2hdrError, match=rf"{name}\.exr has {most + 1} values in its channels, more than"):
            read_planes(tmp_path / f"{name}.exr", max_values=most)
    with pytest.raises(Ldr2hdrError, match="damaged"):
        read_planes(tmp_path / "b.exr")


def test_a_frame_s_number_is_kept_whatever_its_size(tmp_path):
    number = 20240101123456  # of img_20240101123456.jpg
    write_exr(tmp_path / "a.exr", picture(), attributes=attributes(frame_number=number))
    assert header_bytes(tmp_path / "a.exr")["ldr2hdr/frame"] == ("string", b"20240101123456")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="H×W×3"):
        write_exr("a.exr", np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="alpha"):
        write_exr("a.exr", np.zeros((4, 4, 3), np.float32), np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match="compression"):
        write_exr("a.exr", np.zeros((4, 4, 3), np.float32), compression="jpeg")


def test_radiance_is_read_by_ffmpeg(tmp_path):
    pixels = picture()
    pixels[0, 0] = -1, np.nan, 0
    write_radiance(tmp_path / "a.hdr", pixels, attributes(source="a\nEXPOSURE=9.mov"))
    found = ffmpeg_pixels(tmp_path / "a.hdr")
    np.testing.assert_array_equal(found[0, 0], 0)
    # Eight bits of mantissa, shared, truncated by some encoders: within 1/128 of the brightest channel.
    error = np.abs(found - pixels)[1:] / pixels[1:].max(axis=2, keepdims=True)
    assert error.max() <= 1 / 128
    header = (tmp_path / "a.hdr").read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert header[0] == "#?RADIANCE"
    assert "PIXASPECT=0.666667" in header
    assert "PRIMARIES=0.6400 0.3300 0.3000 0.6000 0.1500 0.0600 0.3127 0.3290" in header
    assert not any(line.startswith("EXPOSURE") for line in header)
