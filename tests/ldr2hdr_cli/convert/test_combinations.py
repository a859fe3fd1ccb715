"""Options and kinds of sources that meet in one run."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ldr2hdr import ConvertOptions, convert
from ldr2hdr_cli.convert.events import Done, Note
from ldr2hdr_cli.media.avif import write_avif
from ldr2hdr_cli.media.exr import read_planes
from ldr2hdr_cli.media.sources import read_frames
from ldr2hdr_cli.media.ultrahdr import write_ultrahdr


def planes(source: Path, **options: object) -> dict[str, np.ndarray]:
    out = source.parent / "out"
    events = list(convert(source, out, ConvertOptions(method="clip", overwrite=True, **options)))
    assert any(isinstance(event, Done) for event in events), events
    return read_planes(out / f"{source.stem}.exr")[0]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    codes = np.full((48, 64, 3), 120, np.uint8)
    codes[:, 32:] = 255
    Image.fromarray(codes).save(tmp_path / "a.jpg", quality=97, subsampling=0)
    return tmp_path / "a.jpg"


def mask(source: Path, **options: object) -> np.ndarray:
    found = planes(source, channel="mask", **options)
    (name,) = found.keys() - {"R", "G", "B", "A"}
    return found[name]


def test_the_mask_says_that_nothing_is_made_up_where_a_source_has_its_light(photo: Path) -> None:
    assert np.allclose(mask(photo)[:, [8, 56]], [0, 1])
    light = np.full((48, 64, 3), 0.2, np.float32)
    light[:, 32:] = 2
    light[:, 48:] = 6
    write_avif(photo.with_name("pq.avif"), light, quality=100)
    assert not mask(photo.with_name("pq.avif"), from_hdr=True).any()
    write_ultrahdr(photo.with_name("ultra.jpg"), light, photo)
    use = mask(photo.with_name("ultra.jpg"))
    assert np.allclose(use[:, [8, 40, 60]], [0, 0, 1], atol=0.02)  # it is at the map's maximum
    assert not mask(photo.with_name("ultra.jpg"), gain_map="only").any()
    assert np.allclose(mask(photo.with_name("ultra.jpg"), gain_map="ignore")[:, [8, 40, 60]], [0, 1, 1])


def test_a_clip_in_hlg_looks_as_before_in_an_hlg_film(tmp_path: Path) -> None:
    codes = np.tile(np.linspace(100, 600, 64).astype(np.uint16), (64, 1))  # below what a shoulder bends
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 18, 9, 1
        frame = av.VideoFrame(64, 64, "yuv444p10le")
        for plane, values in zip(
            frame.planes, (codes, np.full_like(codes, 512), np.full_like(codes, 512)), strict=True
        ):
            np.frombuffer(plane, np.uint16).reshape(64, -1)[:, :64] = values
        frame.pts, frame.colorspace, frame.color_range = 0, 9, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    how = ConvertOptions(method="clip", from_hdr=True, format="exr,hlg", colorspace="acescg", crf=4)
    list(convert(tmp_path / "a.mkv", tmp_path / "out", how))
    before, after = (
        next(iter(read_frames(path, from_hdr=True))).pixels
        for path in (tmp_path / "a.mkv", tmp_path / "out" / "a" / "a.hlg.mkv")
    )
    assert np.abs(before - after)[:, 4:60].max() < 0.01


def test_alpha_that_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 4), 128, np.uint8)).save(tmp_path / "a.png")
    for format, count in (("exr", 0), ("exr,avif,hdr", 1)):
        events = convert(tmp_path / "a.png", tmp_path / format, ConvertOptions(method="clip", format=format))
        notes = [event.message for event in events if isinstance(event, Note)]
        assert sum("its alpha is not in avif and hdr: EXR alone has one." in note for note in notes) == count
