"""Clips as people have them: depth, range, turned, anamorphic, variable rate, interlaced, with alpha, damaged."""

import io
import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from ldr2hdr_cli.media import decode, rgb
from ldr2hdr_cli.media.colour import REC709, REC2020
from ldr2hdr_cli.media.seek import may_hold_fields
from ldr2hdr_cli.media.sources import probe, read_frames
from ldr2hdr_cli.media.timecode import advance
from model.errors import Ldr2hdrError

LOSSLESS = {"qp": "0"}


def ramp(low: int, high: int, width: int = 64, height: int = 16) -> np.ndarray:
    """Codes from low to high along each line."""
    kind = np.uint8 if high < 256 else np.uint16
    return np.tile(np.linspace(low, high, width).astype(kind), (height, 1))


def flat(code: int, height: int = 16, width: int = 64) -> np.ndarray:
    return np.full((height, width), code, np.uint8 if code < 256 else np.uint16)


def neutral(luma: np.ndarray, bits: int = 8) -> tuple[np.ndarray, ...]:
    """A grey picture in 4:2:0."""
    chroma = np.full((luma.shape[0] // 2, luma.shape[1] // 2), 1 << (bits - 1), luma.dtype)
    return luma, chroma, chroma


# What the code values mean


@pytest.mark.parametrize(
    ("codec", "pixels", "bits"),
    [("libx264", "yuv420p", 8), ("libx264", "yuv420p10le", 10), ("ffv1", "yuv420p12le", 12)],
)
@pytest.mark.parametrize("full", [False, True])
def test_every_luma_code_has_the_value_of_its_range(clip, codec, pixels, bits, full):
    luma = ramp(0, 2**bits - 1)
    path = clip(
        "ramp.mkv",
        [neutral(luma, bits)],
        codec=codec,
        pixels=pixels,
        options=LOSSLESS if codec == "libx264" else {},
        tags={"colorspace": 1, "color_range": 2 if full else 1},
    )
    black, white = (0, 2**bits - 1) if full else (16 << (bits - 8), 235 << (bits - 8))  # BT.709-6, item 4.6
    wanted = np.clip((luma[0].astype(float) - black) / (white - black), 0, 1)
    plate = probe(path)
    assert (plate.bit_depth, plate.full_range, plate.matrix) == (bits, full, "bt709")
    found = next(read_frames(path)).pixels
    assert np.abs(found - wanted[None, :, None]).max() < 1e-5


def test_bt2020_in_standard_range_is_read_with_its_matrix_and_its_primaries(clip):
    codes = [flat(code) for code in (504, 450, 600)]
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}
    path = clip("wide.mp4", [tuple(codes)], codec="libx264", pixels="yuv444p10le", options=LOSSLESS, tags=tags)
    plate = probe(path)
    assert (plate.matrix, plate.primaries, plate.transfer) == ("bt2020nc", "bt2020", "bt2020-10")
    assert plate.chromaticities == REC2020
    # BT.2020-2, tables 4 and 5: 64 is black, 876 codes to white; 512 is neutral, 896 codes for chroma.
    luma, blueness, redness = (504 - 64) / 876, (450 - 512) / 896, (600 - 512) / 896
    red, blue = luma + 1.4746 * redness, luma + 1.8814 * blueness
    green = (luma - 0.2627 * red - 0.0593 * blue) / 0.6780
    assert np.allclose(next(read_frames(path)).pixels[8, 32], [red, green, blue], atol=1e-5)


def test_a_matrix_given_in_the_bitstream_alone_is_found(clip):
    path = clip("bare.h264", [neutral(flat(100))] * 3, codec="libx264", pixels="yuv420p", tags={"colorspace": 1})
    plate = probe(path)
    assert plate.matrix == "bt709" and plate.chromaticities == REC709
    assert not any("matrix" in note for note in plate.notes)


@pytest.mark.parametrize(("trc", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_hdr_is_refused_with_the_name_of_its_transfer(clip, trc, name, suffix):
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": trc}
    path = clip(f"hdr.{suffix}", [neutral(flat(500), 10)] * 9, codec="libx264", pixels="yuv420p10le", tags=tags)
    with pytest.raises(Ldr2hdrError, match=rf"hdr\.{suffix} is HDR already: its transfer is {name}.*--from-hdr"):
        next(read_frames(path))
    assert probe(path).transfer == name.lower() and probe(path).primaries == "bt2020"


@pytest.mark.parametrize(
    ("codec", "pixels", "bits"),
    [("ffv1", "gbrp10le", 10), ("ffv1", "gbrp12le", 12), ("ffv1", "gbrp14le", 14), ("utvideo", "gbrp", 8)],
)
def test_rgb_codes_keep_their_depth(clip, codec, pixels, bits):
    red = ramp(0, 2**bits - 1)
    green, blue = red[:, ::-1].copy(), red * 0
    path = clip("rgb.mkv" if codec == "ffv1" else "rgb.avi", [(green, blue, red)], codec=codec, pixels=pixels)
    assert probe(path).bit_depth == bits and probe(path).matrix == "rgb"
    found = next(read_frames(path)).pixels * (2**bits - 1)
    assert np.abs(found - np.stack([red, green, blue], 2)).max() < 0.5


@pytest.mark.parametrize("height", [48, 720])  # two guesses for a clip that names no matrix
def test_a_palette_is_rgb(clip, height):
    indices = np.tile(np.arange(64, dtype=np.uint8), (height, 1))
    colours = np.random.default_rng(2).integers(0, 256, (256, 4), dtype=np.uint8)  # alpha, red, green, blue
    colours[:, 0] = 255
    path = clip("palette.mov", [(indices, colours)], codec="png", pixels="pal8")
    assert probe(path).matrix == "rgb" and not probe(path).notes
    assert np.array_equal(np.rint(next(read_frames(path)).pixels * 255), colours[indices][..., 1:])


def test_one_bit_is_black_and_white(clip):
    bits = np.random.default_rng(3).integers(0, 2, (16, 64), dtype=np.uint8)
    path = clip("bits.mov", [bits * 255], codec="png", pixels="monob", layout="gray")
    assert not any("matrix" in note for note in probe(path).notes)
    assert np.array_equal(next(read_frames(path)).pixels, np.repeat(bits[..., None], 3, 2))


# Alpha


def test_alpha_in_planes_keeps_every_code(clip):
    for pixels, bits in (("yuva420p", 8), ("yuva444p10le", 10), ("gbrap12le", 12), ("gbrap", 8)):
        alpha = ramp(0, 2**bits - 1)
        chroma = (alpha[::2, ::2] if "420" in pixels else alpha).copy()
        name, codec = ("alpha.avi", "utvideo") if pixels == "gbrap" else ("alpha.mkv", "ffv1")
        path = clip(name, [(alpha, chroma, chroma, alpha)], codec=codec, pixels=pixels)
        frame = next(read_frames(path))
        assert probe(path).has_alpha and frame.alpha is not None, pixels
        assert np.array_equal(np.rint(frame.alpha * (2**bits - 1)), alpha), pixels
        assert np.abs(frame.alpha - alpha / (2**bits - 1)).max() < 2e-5, pixels


@pytest.mark.parametrize(
    ("codec", "name", "pixels", "top"),
    [("png", "a.mov", "ya8", 255), ("png", "a.mov", "ya16be", 65535), ("ffv1", "a.mkv", "ya8", 255)],
)
def test_grey_with_alpha(clip, codec, name, pixels, top):
    grey = ramp(0, top)
    samples = np.stack([grey, grey[:, ::-1]], 2).astype(">u2" if pixels == "ya16be" else grey.dtype)
    path = clip(name, [(samples,)], codec=codec, pixels=pixels, tags={"color_range": 2})
    plate, frame = probe(path), next(read_frames(path))
    assert plate.has_alpha and frame.alpha is not None
    assert not any("matrix" in note for note in plate.notes)
    assert np.abs(frame.pixels - (grey / top)[..., None]).max() < 1e-5
    assert np.abs(frame.alpha - grey[:, ::-1] / top).max() < 1e-5


def test_alpha_of_prores_4444_and_of_the_animation_codec(clip):
    alpha = ramp(0, 1023)
    grey = np.full_like(alpha, 512)
    path = clip("prores.mov", [(grey, grey, grey, alpha)], codec="prores_ks", pixels="yuva444p10le")
    frame = next(read_frames(path))
    assert frame.alpha is not None and np.abs(frame.alpha - alpha / 1023).max() < 1 / 1023
    argb = np.random.default_rng(0).integers(0, 256, (16, 64, 4), dtype=np.uint8)
    frame = next(read_frames(clip("animation.mov", [argb], codec="qtrle", pixels="argb")))
    assert np.array_equal(np.rint(frame.pixels * 255), argb[..., 1:])
    assert frame.alpha is not None and np.array_equal(np.rint(frame.alpha * 255), argb[..., 0])


# How it is shown


@pytest.mark.parametrize(
    "matrix",
    [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0),
     (0, -1, -1, 0)],
)  # fmt: skip
def test_a_turned_clip_is_read_as_it_is_shown(clip, matrix):
    stored = np.random.default_rng(1).integers(16, 236, (16, 64), dtype=np.uint8)
    path = clip(
        "phone.mp4",
        [neutral(stored)],
        codec="libx264",
        pixels="yuv420p",
        options=LOSSLESS,
        matrix=matrix,
        aspect=Fraction(4, 3),
    )
    a, b, c, d = matrix
    y, x = np.mgrid[:16, :64]
    across, down = a * x + c * y, b * x + d * y  # ISO 14496-12, 8.3.2: (x′ y′ 1) = (x y 1) · matrix
    across, down = across - across.min(), down - down.min()
    shown = np.empty((down.max() + 1, across.max() + 1))
    shown[down, across] = stored
    plate, frame = probe(path), next(read_frames(path))
    assert frame.pixels.shape[:2] == shown.shape == (plate.height, plate.width)
    assert np.array_equal(np.rint(frame.pixels[..., 1] * 219 + 16), shown)
    assert plate.pixel_aspect == pytest.approx(4 / 3 if a else 3 / 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_side_data_that_pyav_cannot_name_hides_no_orientation(tmp_path, orientation):
    """FFmpeg gives the EXIF block of a JPEG as side data of a kind that PyAV 18 does not know."""
    codes = np.kron(np.random.default_rng(1).integers(0, 256, (4, 6), dtype=np.uint8), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = io.BytesIO()
    Image.fromarray(codes).save(data, "jpeg", quality=95, exif=exif)
    path = tmp_path / "camera.mjpeg"
    path.write_bytes(data.getvalue() * 3)
    shown = np.array(ImageOps.exif_transpose(Image.open(data)), np.float32)
    plate, frames = probe(path), list(read_frames(path))
    assert (plate.height, plate.width) == shown.shape and len(frames) == 3
    assert np.abs(frames[2].pixels[..., 1] * 255 - shown).max() < 3


@pytest.mark.parametrize(
    ("name", "codec", "aspect", "wanted"),
    [
        ("a.mp4", "libx264", Fraction(64, 45), 64 / 45),
        ("a.mkv", "libx264", Fraction(64, 45), 64 / 45),
        ("a.ts", "libx264", Fraction(8, 9), 8 / 9),
        ("a.mpg", "mpeg2video", Fraction(16, 15), 16 / 15),
    ],
)
def test_the_shape_of_a_pixel(clip, name, codec, aspect, wanted):
    # 60×48 shown 4:3 has pixels of 16:15, which MPEG-2 can say: it knows only shapes of the whole picture.
    luma = flat(100, 48, 60)
    path = clip(name, [neutral(luma)] * 9, codec=codec, pixels="yuv420p", aspect=aspect)
    assert probe(path).pixel_aspect == pytest.approx(wanted)


# When it is shown


RATES = (Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, Fraction(60000, 1001), 120, Fraction(1, 4))


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mjpeg"), ("a.ts", "libx264")],
)
def test_a_constant_rate_is_exact(clip, name, codec, count):
    """Matroska counts milliseconds, and says the length of a frame in nanoseconds."""
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    noise = np.random.default_rng(6).integers(16, 236, (count, 48, 64), dtype=np.uint8)
    for rate in RATES:
        plate = probe(clip(name, [neutral(luma) for luma in noise], codec=codec, pixels=pixels, rate=rate))
        assert plate.frame_rate == rate
        assert not any("rate" in note for note in plate.notes)


@pytest.mark.parametrize("base", [600, 1000])
@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001)])
def test_time_stamps_that_are_rounded_are_no_variable_rate(clip, base, rate):
    times = [round(index * base / rate) for index in range(100)]
    frames = [neutral(flat(100))] * 100
    for name in ("a.mp4", "a.mov"):
        plate = probe(clip(name, frames, codec="mpeg4", pixels="yuv420p", rate=base, times=times))
        assert plate.frame_rate == rate and not any("rate" in note for note in plate.notes)


STAMPS = {  # base, steps
    "jitter": (600, (18, 20, 23, 20, 22) * 24),
    "every stamp fits 120 a second": (120, (4,) * 60 + (5,) + (4,) * 60 + (5,)),
    "a frame was dropped": (30, (1,) * 80 + (2,) + (1,) * 40),
}


@pytest.mark.parametrize("name", ["phone.mp4", "phone.mov", "phone.flv", "phone.mkv"])
@pytest.mark.parametrize(("base", "steps"), STAMPS.values(), ids=STAMPS)
def test_of_a_variable_rate_the_average_is_given_and_said(clip, name, base, steps):
    times = [sum(steps[:index]) for index in range(len(steps))]
    average = Fraction((len(times) - 1) * base, times[-1])
    codec = "flv" if name == "phone.flv" else "mpeg4"
    how = {"codec": codec, "pixels": "yuv420p", "rate": base, "times": times, "average": average}
    path = clip(name, [neutral(flat(100))] * len(times), **how)
    plate = probe(path)
    assert float(plate.frame_rate) == pytest.approx(float(average), rel=0.003)  # FFmpeg guesses how long the last is
    notes = [note for note in plate.notes if "variable" in note]
    if name in ("phone.mp4", "phone.mov"):  # others do not list their frames
        assert len(notes) == 1 and f"{float(plate.frame_rate):.5g}" in notes[0]


def test_an_average_that_is_not_known_is_left_out(clip):
    """As a browser records: time stamps in milliseconds, and no word of a rate."""
    steps = np.random.default_rng(5).integers(25, 45, 100)
    times = [int(time) for time in np.cumsum(steps)]
    path = clip("meeting.mkv", [flat(100)] * 100, pixels="gray", rate=1000, times=times)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x23\xe3\x83")  # DefaultDuration (RFC 9559, 5.1.4.1.13), which becomes Void
    data[at : at + 2] = bytes((0xEC, 0x80 | (data[at + 3] & 0x7F) + 2))
    path.write_bytes(data)
    plate = probe(path)
    assert plate.frame_rate is None and any("variable" in note for note in plate.notes)


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv", "vfr.ts"])
def test_every_frame_of_a_variable_rate_clip_is_kept_with_its_time(clip, name):
    times = [0, 1, 2, 12, 13, 40, 90]
    frames = [neutral(flat(16 + 20 * i)) for i in range(len(times))]
    path = clip(name, frames, codec="libx264", pixels="yuv420p", rate=30, times=times, options=LOSSLESS)
    found = list(read_frames(path))
    assert [frame.index for frame in found] == list(range(7))
    assert [round(float(frame.pixels[8, 8, 1]) * 219 / 20) for frame in found] == list(range(7))
    start = found[0].seconds
    assert start is not None
    assert [frame.seconds - start for frame in found] == pytest.approx([t / 30 for t in times], abs=0.0006)


@pytest.mark.parametrize(("name", "codec"), [("tc.mov", "libx264"), ("tc.mxf", "mpeg2video"), ("tc.mkv", "libx264")])
def test_timecode_drops_its_numbers_at_the_minute(clip, name, codec):
    frames = [neutral(flat(60 + i)) for i in range(4)]
    metadata = {"timecode": "00:00:59;28"}
    path = clip(name, frames, codec=codec, pixels="yuv420p", rate=Fraction(30000, 1001), metadata=metadata)
    assert probe(path).frame_rate == Fraction(30000, 1001)
    assert probe(path).timecode == "00:00:59;28"
    found = [frame.timecode for frame in read_frames(path)]
    assert found == ["00:00:59;28", "00:00:59;29", "00:01:00;02", "00:01:00;03"]


def test_nothing_is_dropped_at_25_and_less_than_a_frame_a_second_has_no_timecode(clip):
    assert advance("00:00:59;24", 1, Fraction(25)) == "00:01:00:00"
    with pytest.raises(ValueError, match="1/4"):
        advance("00:00:00:00", 1, Fraction(1, 4))
    slow = {"rate": Fraction(1, 4), "metadata": {"timecode": "01:00:00:00"}}
    path = clip("lapse.mkv", [flat(9)] * 4, pixels="gray", **slow)
    assert probe(path).timecode == "01:00:00:00"
    found = [(frame.seconds, frame.timecode) for frame in read_frames(path)]
    assert found == [(0, None), (4, None), (8, None), (12, None)]


@pytest.mark.parametrize(
    ("name", "key"),
    [("a.mkv", "timecode"), ("a.mkv", "title"), ("a.mov", "title"), ("a.mp4", "title"), ("a.avi", "title")],
)
def test_tags_need_not_be_utf_8(clip, name, key):
    path = clip(name, [neutral(flat(100))] * 2, codec="mpeg4", pixels="yuv420p", metadata={key: "Café"})
    data = path.read_bytes()
    assert data.count(b"Caf\xc3\xa9") == 1
    path.write_bytes(data.replace(b"Caf\xc3\xa9", b"Caf\xe9\xff"))
    assert probe(path).timecode == ("Caf\ufffd\ufffd" if key == "timecode" else None)
    assert [frame.timecode for frame in read_frames(path)] == [None, None]


# Interlaced


def fields(first: str, count: int = 7) -> list[tuple[np.ndarray, ...]]:
    """A light that brightens by 10 codes a field; `first`: the field that was taken first, "top" or "bottom"."""
    frames = []
    for index in range(count):
        luma = flat(40 + 20 * index, 48, 64)
        luma[first == "top" :: 2] += 10
        frames.append(neutral(luma))
    return frames


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_deinterlacing_gives_the_moment_of_the_first_field(clip, first):
    options = {**LOSSLESS, "flags": "+ildct"}
    field = {"top": "tff", "bottom": "bff"}[first]
    path = clip("tape.mkv", fields(first), codec="libx264", pixels="yuv420p", options=options, field=field)
    plate = probe(path)
    assert plate.interlaced and any("--deinterlace" in note for note in plate.notes)
    woven = list(read_frames(path))
    assert np.ptp(woven[3].pixels[..., 1]) * 219 == pytest.approx(10, abs=0.01)
    assert not any("--deinterlace" in note for note in probe(path, deinterlace=True).notes)
    found = list(read_frames(path, deinterlace=True))
    assert [frame.index for frame in found] == list(range(7))
    assert [frame.seconds for frame in found] == pytest.approx([frame.seconds for frame in woven])
    for index in range(1, 6):  # the first and the last lack a neighbour
        codes = found[index].pixels[..., 1] * 219 + 16
        assert np.abs(codes - (40 + 20 * index)).max() < 1.01, index


@pytest.mark.parametrize(("order", "first"), [("tt", "top"), ("bb", "bottom"), ("tb", "bottom"), ("bt", "top")])
def test_the_container_alone_may_say_that_a_clip_is_interlaced(clip, order, first):
    luma = [planes[0] for planes in fields(first)]
    path = clip("tape.mov", luma, codec="png", pixels="gray", options={"field_order": order})
    assert probe(path).interlaced
    for frame in list(read_frames(path, deinterlace=True))[1:6]:
        assert np.abs(frame.pixels[..., 1] * 255 - (40 + 20 * frame.index)).max() < 1.01


# Damage


def moving(count: int, height: int = 96, width: int = 128) -> list[tuple[np.ndarray, ...]]:
    """A textured picture that slides by, so that every frame differs and is predicted from its neighbours."""
    coarse = np.random.default_rng(4).integers(16, 236, (height // 8 + 8, width // 8 + 16), dtype=np.uint8)
    world = np.kron(coarse, np.ones((8, 8), np.uint8))
    return [neutral(np.ascontiguousarray(world[i % 60 :][:height, 2 * i % 120 :][:, :width])) for i in range(count)]


def read_until_it_fails(path, **how) -> tuple[dict[int, np.ndarray], str]:
    """The pictures by index, and what the error says, or nothing."""
    found = {}
    try:
        for frame in read_frames(path, **how):
            found[frame.index] = frame.pixels
    except Ldr2hdrError as error:
        return found, str(error)
    return found, ""


def assert_same(found: dict[int, np.ndarray], wanted: dict[int, np.ndarray]) -> None:
    for index, pixels in found.items():
        assert np.array_equal(pixels, wanted[index]), index


def cut(path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def hurt(path, *numbers: int) -> None:
    """Invert all bytes of some packets, counted in the order of decoding."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for number in numbers:
        assert data.count(packets[number]) == 1
        data = data.replace(packets[number], bytes(byte ^ 0xFF for byte in packets[number]))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "muxing"),
    [
        ("cut.mkv", "libx264", "yuv420p", {}),
        ("cut.mp4", "libx264", "yuv420p", {"movflags": "faststart"}),
        ("pieces.mp4", "libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
        ("cut.avi", "mjpeg", "yuvj420p", {}),
        ("cut.mxf", "mpeg2video", "yuv420p", {}),
    ],
)
def test_a_clip_that_is_cut_short_gives_what_it_has_and_says_where_it_ends(clip, name, codec, pixels, muxing):
    options = {} if codec == "mjpeg" else {"g": "10"}
    path = clip(name, moving(40), codec=codec, pixels=pixels, options=options, muxing=muxing)
    whole, says = read_until_it_fails(path)
    assert len(whole) == 40 and not says
    cut(path, 0.6)
    found, says = read_until_it_fails(path, start_number=1)
    assert 5 < len(found) < 40 and list(found) == list(range(len(found)))
    assert_same(found, whole)
    assert f"{name} is damaged" in says and "the file is cut short" in says
    ends = int(re.search(r"breaks off before frame (\d+)", says)[1])
    lost = re.search(r"frames? ([\d-]+) cannot be decoded", says)
    assert [len(found) + 1] == [int(lost[1].split("-")[0]) if lost else ends]
    assert read_until_it_fails(path, last=4)[1] == ""


def test_frames_outside_the_edit_list_are_no_damage(clip):
    path = clip("trimmed.mp4", moving(40), codec="libx264", pixels="yuv420p", options={"g": "10", "bf": "2"})
    whole, _ = read_until_it_fails(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8  # version, flags, number of entries; then duration in ms and start
    (start,) = struct.unpack(">i", data[at + 4 : at + 8])
    data[at : at + 8] = struct.pack(">Ii", 400, start + 23 * 12800 // 25)
    path.write_bytes(data)
    found, says = read_until_it_fails(path)
    assert says == ""
    assert list(found) == list(range(10)) and probe(path).frame_count == 10
    assert_same(found, {index: whole[index + 23] for index in range(10)})


def test_a_frame_that_repeats_the_last_one_is_no_damage(clip):
    """An AVI writes an empty chunk for a frame that was dropped while it was captured."""
    path = clip("capture.avi", moving(20), codec="mjpeg", pixels="yuvj420p")
    data = path.read_bytes()
    index = data.index(b"idx1")
    at = index + 8 + 16 * 7
    offset, size = struct.unpack("<II", data[at + 8 : at + 16])
    chunk = data.index(b"movi") + offset
    emptied = bytearray(data)
    emptied[chunk : chunk + 8 + size] = b"00dc" + bytes(4) + b"JUNK" + struct.pack("<I", size - 8) + bytes(size - 8)
    emptied[at + 12 : at + 16] = bytes(4)
    path.write_bytes(emptied)
    found, says = read_until_it_fails(path)
    assert len(found) == 19 and says == ""


def test_a_damaged_picture_is_left_out_and_named_by_its_number(clip):
    path = clip("stills.mov", moving(30), codec="mjpeg", pixels="yuvj420p")
    whole, _ = read_until_it_fails(path)
    hurt(path, 0, 12, 13, 14, 29)
    found, says = read_until_it_fails(path, start_number=1001)
    assert list(found) == [i for i in range(30) if i not in (0, 12, 13, 14, 29)]
    assert_same(found, whole)
    assert "frames 1001, 1013-1015, 1030 cannot be decoded; all other frames are good" in says
    assert read_until_it_fails(path, first=1, last=11)[1] == ""  # nothing beyond the last frame is asked for
    assert "frame 12 cannot be decoded;" in read_until_it_fails(path, first=2, every=10)[1]
    assert probe(path).width == 128


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("gop.mp4", "libx264", {"g": "10", "bf": "2"}),
        ("open.mkv", "libx264", {"g": "10", "bf": "2", "x264-params": "open-gop=1"}),
        ("gop.mov", "mpeg2video", {"g": "10", "bf": "2"}),
        ("gop.mkv", "libvpx-vp9", {"g": "10"}),
    ],
)
@pytest.mark.parametrize("number", [10, 13, 16, 20])
def test_what_a_damaged_frame_may_have_spoiled_is_left_out_up_to_the_next_key_frame(clip, name, codec, options, number):
    path = clip(name, moving(40), codec=codec, pixels="yuv420p", options=options)
    whole, _ = read_until_it_fails(path)
    hurt(path, number)
    found, says = read_until_it_fails(path)
    assert 20 <= len(found) < 40
    assert_same(found, whole)
    named = re.search(r"frames? ([\d, -]+) cannot be decoded; all other", says)[1]
    lost = [range(int(run.split("-")[0]), int(run.split("-")[-1]) + 1) for run in named.split(", ")]
    assert sorted([*found, *(index for run in lost for index in run)]) == list(range(40))


def test_where_frames_cannot_be_numbered_a_clip_ends_at_its_first_damage(clip):
    path = clip("packed.avi", moving(30), codec="mpeg4", pixels="yuv420p", options={"g": "10"})
    whole, _ = read_until_it_fails(path)
    hurt(path, 15)
    found, says = read_until_it_fails(path)
    assert 10 <= len(found) <= 15 and list(found) == list(range(len(found)))
    assert_same(found, whole)
    assert f"it breaks off before frame {len(found)}" in says


def test_a_clip_of_which_nothing_can_be_decoded(clip):
    path = clip("dead.mov", moving(3), codec="mjpeg", pixels="yuvj420p")
    hurt(path, 0, 1, 2)
    with pytest.raises(Ldr2hdrError, match=r"dead\.mov holds no picture"):
        probe(path)
    assert "frames 0-2 cannot be decoded" in read_until_it_fails(path)[1]


# Going on in the middle


def numbered(count: int = 120) -> list[tuple[np.ndarray, ...]]:
    """64×48; above what moves, the number of the frame, a bit in each eight columns."""
    frames = moving(count, 48, 64)
    for index, (luma, _, _) in enumerate(frames):
        luma[:8] = np.repeat([235 if index >> bit & 1 else 16 for bit in range(8)], 8)
    return frames


OPEN = {"g": "12", "bf": "3", "x264-params": "open-gop=1"}
STEPS = [int(t) for t in np.cumsum(np.random.default_rng(5).integers(1, 9, 120))]


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The time stamps of all pictures that decoders give."""
    given: list[int] = []
    show = decode._Presentation.show

    def counted(self, picture):
        given.append(picture.pts)
        show(self, picture)

    monkeypatch.setattr(decode._Presentation, "show", counted)
    return given


def told(frames) -> list[tuple]:
    return [(frame.index, frame.seconds, frame.timecode, frame.pixels.tobytes()) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "options", "how", "most"),
    [
        ("open.mp4", "libx264", OPEN, {}, 52),
        ("open.mkv", "libx264", OPEN, {}, 52),
        ("open.ts", "libx264", OPEN, {}, 52),
        ("closed.mp4", "libx264", {"g": "12", "bf": "3"}, {"muxing": {"movflags": "frag_keyframe+empty_moov"}}, 52),
        ("vfr.mkv", "libx264", OPEN, {"times": STEPS}, 52),
        ("open.mov", "libx265", {"x265-params": "log-level=none:keyint=12:min-keyint=1:open-gop=1:bframes=3"}, {}, 52),
        ("tape.mpg", "mpeg2video", {"g": "12", "bf": "2"}, {}, 52),
        ("tape.mxf", "mpeg2video", {"g": "12", "bf": "2"}, {}, 52),
        ("web.mkv", "libvpx-vp9", {"g": "12", "cpu-used": "8", "deadline": "realtime"}, {}, 52),
        ("archive.mkv", "ffv1", {"g": "6"}, {}, 42),
        ("intra.mov", "mjpeg", {}, {}, 42),
        ("refresh.mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}, {}, None),  # has no key frames
        ("packed.avi", "mpeg4", {"g": "12", "bf": "2"}, {}, None),  # frames cannot be numbered
        ("fields.mkv", "libx264", {"g": "12", "flags": "+ildct"}, {"field": "tff"}, None),  # nor here
    ],
)
def test_frames_from_the_middle_are_those_of_the_whole(clip, decoded, name, codec, options, how, most):
    """most: the pictures, at most, that are decoded for the last twelve of 84; None where all must be."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    metadata = {"timecode": "01:00:00:00"}
    path = clip(name, numbered(84), codec=codec, pixels=pixels, options=options, metadata=metadata, **how)
    whole = told(read_frames(path))
    assert len(whole) == 84 and len({pixels for *_, pixels in whole}) == 84
    for first in (35, 36, 37, 59, 60, 61, 82, 83, 84, 99):
        assert told(read_frames(path, first=first)) == whole[first:], first
    assert told(read_frames(path, first=38, last=69, every=5)) == whole[38:70:5]
    deinterlaced = told(read_frames(path, deinterlace=True))
    for first in (48, 72):
        assert told(read_frames(path, first=first, deinterlace=True)) == deinterlaced[first:], first
    decoded.clear()
    assert told(read_frames(path, first=72)) == whole[72:]
    assert 12 <= len(decoded) <= most if most else len(decoded) >= 84


def test_a_clip_that_begins_in_the_middle_of_something_keeps_its_numbers(clip, decoded):
    """Recorded from the air: its first pictures lack the group before them."""
    path = clip("air.ts", numbered(), codec="libx264", pixels="yuv420p", options=OPEN)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe]
    path.write_bytes(path.read_bytes()[:564] + path.read_bytes()[places[1] :])
    whole = told(read_frames(path))
    assert 100 <= len(whole) < 120
    for first in (60, 71, 72, 90):
        decoded.clear()
        assert told(read_frames(path, first=first)) == whole[first:], first
    assert len(decoded) < len(whole)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("gop.mp4", "libx264", {"g": "12", "bf": "2"}), ("open.mkv", "libx264", OPEN), ("gop.mov", "mpeg2video", OPEN)],
)
@pytest.mark.parametrize("number", [30, 48, 61, 73, 84, 110])
def test_a_damaged_clip_says_and_gives_the_same_from_its_middle(clip, name, codec, options, number):
    options = {key: value for key, value in options.items() if key != "x264-params" or codec == "libx264"}
    path = clip(name, numbered(), codec=codec, pixels="yuv420p", options=options)
    hurt(path, number)
    whole, _ = read_until_it_fails(path)
    for first in (60, 84, 85, 100):
        found, says = read_until_it_fails(path, first=first)
        assert list(found) == [index for index in whole if index >= first]
        assert_same(found, whole)
        lost = [index for index in range(first, 120) if index not in whole]
        assert bool(says) == bool(lost) and (not lost or re.search(rf"frames? {lost[0]}\b", says))


@pytest.mark.parametrize("progressive", [True, False])
def test_a_parameter_set_of_h264_says_whether_a_packet_may_be_a_field(clip, progressive):
    """x264 writes frame_mbs_only_flag = 0 for a clip that is coded as interlaced, and 1 for any other."""
    options = {} if progressive else {"flags": "+ildct"}
    for name in ("set.mp4", "set.ts"):
        field = None if progressive else "tff"
        path = clip(name, moving(12, 48, 64), codec="libx264", pixels="yuv420p", options=options, field=field)
        with av.open(str(path)) as container:
            extradata = container.streams.video[0].codec_context.extradata
            packet = bytes(next(container.demux(video=0)))
        assert may_hold_fields(extradata, extradata) != progressive
        assert may_hold_fields(extradata[:9], extradata[:9])  # cut short: nothing is certain
        assert may_hold_fields(packet, extradata) != (progressive or name == "set.mp4")  # an MP4 has it in front alone


# Size


@pytest.mark.parametrize("deinterlace", [False, True])
def test_a_clip_may_change_its_size_but_not_beyond_the_limit(tmp_path, deinterlace):
    def jpeg(width: int, height: int) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (width, height), (100, 100, 100)).save(data, "jpeg")
        return data.getvalue()

    path = tmp_path / "grows.mjpeg"
    path.write_bytes(jpeg(64, 48) * 5 + jpeg(128, 96) * 3 + jpeg(64, 48) * 2)
    shapes = [frame.pixels.shape[:2] for frame in read_frames(path, deinterlace=deinterlace)]
    assert shapes == [(48, 64)] * 5 + [(96, 128)] * 3 + [(48, 64)] * 2
    found, says = read_until_it_fails(path, max_pixels=64 * 48, deinterlace=deinterlace)
    assert list(found) == list(range(5))
    assert "grows.mjpeg" in says and "--max-pixels" in says
    path.write_bytes(jpeg(64, 48) * 5 + jpeg(2000, 2000))
    found, says = read_until_it_fails(path, max_pixels=64 * 48, deinterlace=deinterlace)
    assert list(found) == list(range(5))
    assert "breaks off before frame 5 (it grows to more pixels than --max-pixels allows)" in says
    for read in (probe, lambda path, max_pixels: next(read_frames(path, max_pixels=max_pixels))):
        with pytest.raises(Ldr2hdrError, match="--max-pixels"):
            read(path, max_pixels=1000)


def test_ffmpeg_never_logs_through_python(clip):
    """It could deadlock: torchvision, for one, has it log so, and a decoder that is freed waits for its threads."""
    path = clip("grey.mp4", [neutral(flat(100))] * 3, codec="libx264", pixels="yuv420p")
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        assert len(list(read_frames(path))) == 3
        assert av.logging.get_level() is None
    finally:
        av.logging.set_level(before)


# Full range


@pytest.mark.parametrize(
    ("pixels", "bits"), [("yuv444p", 8), ("yuv444p10le", 10), ("yuva444p", 8), ("gray", 8), ("yuv420p", 8)]
)
def test_luma_in_full_range_whatever_swscale_makes_of_the_format(clip, pixels, bits):
    luma = ramp(0, 2**bits - 1)
    chroma = np.full((8, 32) if "420" in pixels else luma.shape, 1 << (bits - 1), luma.dtype)
    planes = (luma,) if pixels == "gray" else (luma, chroma, chroma, luma)[: 4 if "a" in pixels[:4] else 3]
    path = clip("full.mkv", [planes], pixels=pixels, tags={"colorspace": 1, "color_range": 2})
    assert np.abs(next(read_frames(path)).pixels - luma[..., None] / (2**bits - 1)).max() < 2e-5


def test_a_picture_has_the_same_values_each_time_whatever_its_width():
    """The threads of swscale write over the ends of each other's rows, where these are not multiples of 64 bytes."""
    rng = np.random.default_rng(0)
    frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (720, 854), np.uint8), format="yuv420p")
    coding = rgb.Coding(1, False, 8)
    assert (rgb._threads(854, 2), rgb._threads(1920, 2)) == (1, 0)  # what follows is seen in one run of two
    first = rgb.codes_of(frame, coding).values
    assert all(np.array_equal(rgb.codes_of(frame, coding).values, first) for _ in range(60))
