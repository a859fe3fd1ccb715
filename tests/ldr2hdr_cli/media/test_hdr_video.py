"""HDR10, HLG and ProRes as FFmpeg decodes them: tags, light levels, pixels, times, and what the source has besides."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from hypothesis import given
from hypothesis import strategies as st

from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import DisplayLight, hlg, pq, to_rec2020
from ldr2hdr_cli.media.formats import film_suffix
from ldr2hdr_cli.media.hdr_video import VideoSettings, join, picture, read_record, write_segment
from ldr2hdr_cli.media.light_levels import LightLevels, _escaped
from model.errors import Ldr2hdrError

HEIGHT, WIDTH = 64, 96
COLOURS = [(0.0, 0.0, 0.0), (0.18, 0.18, 0.18), (1.0, 1.0, 1.0), (1.0, 0.2, 0.05), (4.0, 3.0, 0.5), (60.0, 60.0, 60.0)]
FORMATS = [("hdr10", "libx265"), ("hdr10", "libsvtav1"), ("hlg", "libx265"), ("prores", "libx265")]


def flat(colour):
    return np.broadcast_to(np.float32(colour), (HEIGHT, WIDTH, 3)).copy()


def codes(colour, format, light):
    """Y, Cb, Cr of BT.2100-2, in float, before rounding."""
    nits = light.nits(flat(colour)[:1, :1], to_rec2020(REC709)).astype(np.float64)
    red, green, blue = (hlg(nits, light.peak) if format == "hlg" else pq(nits))[0, 0]
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    return (219 * luma + 16) * 4, (224 * (blue - luma) / 1.8814 + 128) * 4, (224 * (red - luma) / 1.4746 + 128) * 4


def encoded(folder, settings, frames, length=4, source=None, seconds=None, **how):
    """A film of these linear frames, in segments of `length`."""
    seconds = seconds or [index / float(settings.rate) for index in range(len(frames))]
    folder.mkdir(exist_ok=True)
    segments = []
    for start in range(0, len(frames), length):
        segments.append(folder / f"{start:06d}.mp4")
        part = zip(frames[start : start + length], seconds[start : start + length], strict=True)
        write_segment(segments[-1], ((picture(frame, settings), time) for frame, time in part), settings)
    out = folder / ("film" + film_suffix(settings.format, source or folder / "a.mp4"))
    notes = join(out, segments, settings, source, **how)
    return out, notes


def decoded(path):
    """Frames; planes as float 10-bit codes."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    planes = []
    for frame in frames:
        unit = 4 if "12" in frame.format.name else 1
        rows = [np.frombuffer(p, np.uint16).reshape(p.height, -1)[:, : p.width] / unit for p in frame.planes]
        planes.append(rows)
    return frames, planes


@pytest.mark.parametrize(("format", "codec"), FORMATS)
def test_tags_and_pixels_of_the_documented_curve(tmp_path, format, codec):
    settings = VideoSettings(format, codec, crf=0)
    out, notes = encoded(tmp_path / "out", settings, [flat(colour) for colour in COLOURS])
    frames, planes = decoded(out)
    assert notes == []
    assert len(frames) == len(COLOURS)
    transfer = 18 if format == "hlg" else 16
    for frame, colour, rows in zip(frames, COLOURS, planes, strict=True):
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, transfer, 9, 1)
        for plane, exact in zip(rows, codes(colour, format, settings.light), strict=True):
            assert np.abs(plane - exact).max() < (0.51 if codec == "libx265" and format != "prores" else 1.51)
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        tag = {"prores": "ap4h", "hevc": "hvc1", "libdav1d": "av01", "av1": "av01"}[context.name]
        assert context.codec_tag == tag
        assert context.format.name in ("yuv420p10le", "yuv444p12le")


@pytest.mark.parametrize(("format", "codec"), FORMATS)
def test_light_levels_are_those_of_the_whole_film(tmp_path, format, codec):
    light = DisplayLight(peak=600)
    settings = VideoSettings(format, codec, light=light)
    half = flat((0.5, 0.5, 0.5))
    half[:, : WIDTH // 2] = 1.5
    out, _ = encoded(tmp_path / "out", settings, [flat((0.1,) * 3), half, flat((0.2,) * 3)], length=2)
    frames, _ = decoded(out)
    brightest = float(light.nits(np.full((1, 1, 3), 1.5, np.float32)).max())
    for frame in frames[:: len(frames) - 1]:  # the first of each segment: players start anywhere
        given = [frame.side_data.get(kind) for kind in (Type.CONTENT_LIGHT_LEVEL, Type.MASTERING_DISPLAY_METADATA)]
        if format == "hlg":
            assert given == [None, None]
            continue
        content, mastering = (bytes(one) for one in given)
        max_cll, max_fall = struct.unpack("<2I", content)
        assert max_cll == pytest.approx(brightest, abs=1)
        assert max_fall == pytest.approx((brightest + 0.5 * 203) / 2, abs=1)
        values = [a / b for a, b in struct.iter_unpack("<2i", mastering[:80])]
        assert values == pytest.approx([*REC709, 0.0001, 600], abs=1e-4)  # FFmpeg: R, G, B, white, least, most
    if format != "hlg":
        data = out.read_bytes()
        at = data.index(b"clli") + 4
        assert struct.unpack(">2H", data[at : at + 4]) == (max_cll, max_fall)
        assert data.index(b"mdcv") > data.index(b"moov")


@pytest.fixture
def source(tmp_path):
    """A clip with a variable frame rate, sound, subtitles, chapters, a time code and a title."""

    def make(name):
        path = tmp_path / name
        is_mkv = path.suffix == ".mkv"
        with av.open(str(path), "w") as container:
            container.metadata["title"] = "Holiday"
            video = container.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            video.time_base = video.codec_context.time_base = Fraction(1, 12800)
            (container if is_mkv else video).metadata["timecode"] = "10:00:00:00"
            sound = container.add_stream("aac", rate=48000, layout="mono")
            sound.metadata["language"] = "ger"
            text = container.add_mux_stream("subrip") if is_mkv else None
            container.set_chapters(
                [{"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "Sea"}}]
            )
            for time in TIMES:
                frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
                frame.pts, frame.time_base = time, Fraction(1, 12800)
                container.mux(video.encode(frame))
            container.mux(video.encode())
            tone = (np.sin(np.arange(24000) / 20) * 8000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
            if text is not None:
                packet = av.Packet(b"Look!")
                packet.stream, packet.pts, packet.dts, packet.duration = text, 100, 100, 200
                packet.time_base = Fraction(1, 1000)
                container.mux(packet)
        return path

    return make


TIMES = [0, 512, 1024, 2560, 3072, 5120]  # of 1/12800 s


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


@pytest.mark.parametrize(
    ("name", "format", "codec"),
    [
        ("a.mp4", "hdr10", "libx265"),
        ("a.mkv", "hdr10", "libx265"),
        ("a.mov", "prores", ""),
        ("a.mp4", "hlg", "libsvtav1"),
    ],
)
def test_all_that_is_no_picture_is_the_sources(tmp_path, source, name, format, codec):
    path = source(name)
    settings = VideoSettings(format, codec)
    seconds = [float(frame.pts * frame.time_base) for frame in decoded(path)[0]]
    frames = [flat((index / 4,) * 3) for index in range(len(TIMES))]
    out, notes = encoded(tmp_path / "out", settings, frames, 4, path, seconds, timecode="10:00:00:00")
    assert notes == []
    after, _ = decoded(out)
    tick = float(after[0].time_base)
    assert [float(frame.pts * frame.time_base) for frame in after] == pytest.approx(seconds, abs=tick / 2)
    before, now = packets(path, "audio"), packets(out, "audio")
    assert [data for _, data in now] == [data for _, data in before]
    assert [time for time, _ in now] == pytest.approx([time for time, _ in before], abs=1e-3)
    with av.open(str(out)) as container:
        assert container.metadata["title"] == "Holiday"
        assert container.streams.audio[0].metadata["language"] == "ger"
        (chapter,) = container.chapters()
        assert chapter["metadata"]["title"] == "Sea"
        assert (chapter["end"] - chapter["start"]) * chapter["time_base"] == Fraction(3, 10)
        tags = [*container.metadata.items(), *(item for one in container.streams for item in one.metadata.items())]
        assert "10:00:00:00" in [value for key, value in tags if key.lower() == "timecode"]
    if name == "a.mkv":
        assert packets(out, "subtitles") == packets(path, "subtitles") == [(0.1, b"Look!")]


def test_part_of_a_clip_has_that_parts_sound(tmp_path, source):
    path = source("a.mp4")
    frames, seconds = [flat((0.5,) * 3)] * 3, [1024 / 12800, 2560 / 12800, 3072 / 12800]
    out, _ = encoded(tmp_path / "out", VideoSettings(), frames, 2, path, seconds, is_trimmed=True)
    after, _ = decoded(out)
    assert [frame.time for frame in after] == pytest.approx([0, 0.12, 0.16])
    whole, part = packets(path, "audio"), packets(out, "audio")
    assert 0 < len(part) < len(whole)
    at = [data for _, data in whole].index(part[0][1])
    assert [data for _, data in part] == [data for _, data in whole][at : at + len(part)]
    assert part[0][0] == pytest.approx(whole[at][0] - seconds[0], abs=1e-3)


def test_sound_that_the_container_cannot_hold_is_named(tmp_path, source):
    out, notes = encoded(
        tmp_path / "out", VideoSettings(), [flat((1,) * 3)], 4, source("a.mkv").rename(tmp_path / "a.m4v")
    )
    assert notes == ["its subtitle in subrip cannot be stored in mp4: left out."]
    assert len(packets(out, "audio")) > 1


@pytest.mark.parametrize(("format", "codec"), FORMATS)
def test_same_bytes_each_time(tmp_path, format, codec):
    settings = VideoSettings(format, codec)
    rng = np.random.default_rng(0)
    frames = [rng.random((HEIGHT, WIDTH, 3), np.float32) * 3 for _ in range(5)]
    one, other = (encoded(tmp_path / name, settings, frames, 3)[0] for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_segment_is_whole_or_absent(tmp_path):
    def broken():
        yield picture(flat((1,) * 3), VideoSettings()), 0.0
        raise RuntimeError("killed")

    path = tmp_path / "000000.mp4"
    with pytest.raises(RuntimeError, match="killed"):
        write_segment(path, broken(), VideoSettings())
    assert [*tmp_path.iterdir()] == []
    made = write_segment(path, [(picture(flat((2,) * 3), VideoSettings()), 0.25)], VideoSettings())
    assert read_record(path) == made
    assert (made.seconds, made.order) == ([0.25], [0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Ldr2hdrError, match=r"000000\.mp4 .*run the same command again"):
        read_record(path)


def test_odd_sizes_keep_every_pixel(tmp_path):
    frame = np.broadcast_to(np.linspace(0, 2, 65, dtype=np.float32)[None, :, None], (63, 65, 3)).copy()
    out, _ = encoded(tmp_path / "out", VideoSettings(crf=0), [frame])
    (rows,) = decoded(out)[1]
    assert rows[0].shape == (64, 66)
    luma = (219 * pq(DisplayLight().nits(frame)[..., 0]) + 16) * 4
    assert np.abs(rows[0][:63, :65] - luma).max() < 0.52


def test_chroma_is_sited_with_the_upper_left_pixel():
    frame = flat((0.2, 0.2, 0.2))
    frame[:, 48] = (1.0, 0.0, 0.0)  # one column, at an even place
    _, _, red = picture(frame, VideoSettings(crf=0)).planes
    away = red[0].astype(int) - 512
    assert away[24] == away.max()
    assert away[23] == away[25] == 0  # its neighbours are two columns away


@pytest.mark.parametrize("preset", ["ultrafast", "medium"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_short_segments_in_every_preset(tmp_path, count, preset):
    frames = [flat((index / 3,) * 3) for index in range(count)]
    out, _ = encoded(tmp_path / "out", VideoSettings(crf=0, preset=preset), frames, 3)
    after, planes = decoded(out)
    assert [frame.time for frame in after] == pytest.approx([index / 25 for index in range(count)])
    levels = [rows[0].mean() for rows in planes]
    assert levels == sorted(levels)


def test_unknown_encoder_is_refused(tmp_path):
    with pytest.raises(Ldr2hdrError, match="--codec libnone: this FFmpeg has no such encoder"):
        write_segment(
            tmp_path / "a.mp4", [(picture(flat((1,) * 3), VideoSettings()), 0.0)], VideoSettings(codec="libnone")
        )
    assert [*tmp_path.iterdir()] == []


def unescaped(data):
    """As a decoder takes the payload out of a unit (ITU-T H.265, 7.3.1.1)."""
    made, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        made.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(made)


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=30).map(bytes))
def test_no_start_code_inside_a_unit(payload):
    made = _escaped(payload)
    assert all(code not in made for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))
    assert unescaped(made) == payload


@pytest.mark.parametrize("levels", [(0, 0), (3, 1), (10_000, 768)])
def test_light_levels_with_zeros_are_laid_out_as_in_the_box(levels):
    payload = LightLevels(1000, REC709, *levels).mastering_display() + LightLevels(1000, REC709, *levels).content()
    green_blue_red_white = [0.3, 0.6, 0.15, 0.06, 0.64, 0.33, 0.3127, 0.329]
    assert struct.unpack(">8H2I2H", payload) == (*(round(v * 50_000) for v in green_blue_red_white), 10**7, 1, *levels)
