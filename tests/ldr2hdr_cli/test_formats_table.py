"""docs/formats.md: its table is made here, of what independent readers say of converted files."""

import os
import re
import struct
from pathlib import Path

import av
import imagecodecs
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from PIL import Image

from ldr2hdr import convert
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import DisplayLight, hlg, pq, to_rec2020
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.formats import FILMS, SUFFIXES
from ldr2hdr_cli.media.radiance import read_radiance
from ldr2hdr_cli.options import ConvertOptions
from model.exposure import encode
from tests.conftest import write_clip

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
TABLE = re.compile(r"(<!-- made by .*? -->\n)(.*)(<!-- end -->)", re.DOTALL)
PRIMARIES = {1: "BT.709", 9: "BT.2020"}
TRANSFERS = {16: "PQ", 18: "HLG"}
HEADER = "| `--format` | file | coding | primaries | transfer | light levels | largest error |\n|" + "---|" * 7 + "\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A photograph and a clip, converted to everything at the best quality."""
    folder = tmp_path_factory.mktemp("formats")
    codes = np.tile(np.linspace(10, 250, 96)[None, :, None], (64, 1, 3))
    codes[20:44, 30:62] = 255
    Image.fromarray(codes.astype(np.uint8)).save(folder / "photo.jpg", quality=95, subsampling=0)
    frames = [np.roll(codes.astype(np.uint8), 8 * index, 1) for index in range(3)]
    write_clip(folder / "clip.mp4", frames, codec="libx264", pixels="yuv420p", layout="rgb24", options={"crf": "5"})
    options = {"method": "rempel2007", "transfer": "srgb", "exposure": 1.0, "float_": True, "crf": 0.0, "quality": 100}
    for source, format in (("photo.jpg", ",".join(SUFFIXES)), ("clip.mp4", "exr," + ",".join(FILMS))):
        events = [*convert(folder / source, folder / "out", ConvertOptions(format=format, **options))]
        assert not [event for event in events if "Failed" in type(event).__name__]
    return folder / "out"


def of_exr(results):
    _, channels, attributes = read_exr(results / "photo.exr")
    known = {REC709: "BT.709"}
    primaries = known[tuple(round(value, 4) for value in attributes["chromaticities"])]
    return f"`photo.exr` | {'+'.join(channels)}, half or float | {primaries}, as the source | scene-linear | – | none"


def of_hdr(results):
    pixels, header = read_radiance(results / "photo.hdr")
    exact = read_exr(results / "photo.exr")[0]
    error = (np.abs(pixels - exact) / exact.max(-1, keepdims=True)).max()
    assert error < 1 / 128
    assert header["PRIMARIES"].startswith("0.6400 0.3300")
    return "`photo.hdr` | RGBE | BT.709, as the source | scene-linear | – | 1/256 of the brightest channel"


def of_ultrahdr(results):
    data = (results / "photo.ultrahdr.jpg").read_bytes()
    seen = imagecodecs.ultrahdr_decode(data, dtype="float16", boost=64.0)[..., :3].astype(np.float32)
    shown = DisplayLight().nits(read_exr(results / "photo.exr")[0]) / 203
    error = np.abs(encode(seen, "srgb") - encode(shown, "srgb")).max() * 255
    assert error < 8
    return (
        "`photo.ultrahdr.jpg` | JPEG + JPEG gain map | of the JPEG | of the JPEG | headroom of the picture | < 8 of 255"
    )


def of_avif(results):
    with av.open(str(results / "photo.hdr.avif")) as container:
        frame = next(container.decode(video=0))
    shown = DisplayLight().nits(read_exr(results / "photo.exr")[0], to_rec2020(REC709))
    error = np.abs(frame.to_ndarray(format="gbrp10le") - pq(shown) * 1023).max()
    assert error < 0.51
    coding = f"AV1, {frame.format.components[0].bits} bits 4:4:4"
    tags = f"{PRIMARIES[frame.color_primaries]} | {TRANSFERS[frame.color_trc]}"
    return f"`photo.hdr.avif` | {coding} | {tags} | – | < 0.51 of 1023"


def of_film(results, format):
    (path,) = (results / "clip").glob(f"clip.{format}.*")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        name = container.streams.video[0].codec_context.codec.canonical_name
    error = 0.0
    for index, frame in enumerate(frames):
        shown = DisplayLight().nits(read_exr(results / "clip" / f"clip.{index + 1:06d}.exr")[0], to_rec2020(REC709))
        signal = hlg(shown) if format == "hlg" else pq(shown)
        luma = (219 * (signal @ np.float32([0.2627, 0.6780, 0.0593])) + 16) * 4
        plane = np.frombuffer(frame.planes[0], np.uint16).reshape(64, -1)[:, :96]
        error = max(error, float(np.abs(plane / (4 if "12" in frame.format.name else 1) - luma).max()))
    limit = next(limit for limit in (0.51, 8, 16) if error < limit)
    levels = "–"
    if (content := frames[0].side_data.get(Type.CONTENT_LIGHT_LEVEL)) is not None:
        max_cll, max_fall = struct.unpack("<2I", bytes(content))
        assert max_cll > max_fall > 50
        assert frames[0].side_data.get(Type.MASTERING_DISPLAY_METADATA) is not None
        levels = "MaxCLL, MaxFALL, ST 2086"
    sampling = {"yuv420p10le": "10 bits 4:2:0", "yuv444p12le": "10 bits 4:4:4"}[frames[0].format.name]
    tags = f"{PRIMARIES[frames[0].color_primaries]} | {TRANSFERS[frames[0].color_trc]}"
    return f"`clip/{path.name}` | {name.upper()}, {sampling} | {tags} | {levels} | < {limit} of 1023"


def test_table_is_what_the_files_are(results):
    rows = {"exr": of_exr, "hdr": of_hdr, "ultrahdr": of_ultrahdr, "avif": of_avif}
    made = {format: rows[format](results) for format in SUFFIXES}
    made |= {format: of_film(results, format) for format in FILMS}
    table = HEADER + "".join(f"| `{format}` | {row} |\n" for format, row in made.items())
    text = DOCS.read_text("utf-8")
    if os.environ.get("LDR2HDR_WRITE_DOCS"):
        text = TABLE.sub(lambda found: found[1] + table + found[3], text)
        DOCS.write_text(text, "utf-8")
    assert table in text, f"write it anew: LDR2HDR_WRITE_DOCS=1 python -m pytest {Path(__file__).name}"
