"""PQ and HLG, clips and stills: described, refused, and made linear when that is asked for."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.colour import P3D65, REC2020
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.sources import probe, read_still
from model.errors import Ldr2hdrError

TRC = {"pq": 16, "hlg": 18}
WHITE = {"pq": 0.58069, "hlg": 0.75}  # ITU-R BT.2408-7, table 1: the signal of diffuse white
TAGS = {"colorspace": 9, "color_primaries": 9, "color_range": 1}
LEVELS = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


def steps(transfer: str) -> tuple[np.ndarray, ...]:
    """10-bit limited-range luma: black, diffuse white, peak, in thirds; 4:2:0 grey planes."""
    codes = [round(64 + 876 * signal) for signal in (0, WHITE[transfer], 1)]
    luma = np.repeat(np.array(codes, np.uint16), 32)[None].repeat(32, 0)
    chroma = np.full((16, 48), 512, np.uint16)
    return luma, chroma, chroma


def ldr2hdr(*arguments) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def png(path: Path, codes: np.ndarray, primaries: int, transfer: int) -> Path:
    """16 bits, with a cICP chunk (PNG, third edition, 11.3.2.6)."""
    data = cv2.imencode(".png", codes)[1].tobytes()
    chunk = b"cICP" + bytes([primaries, transfer, 0, 1])
    path.write_bytes(data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:])
    return path


@pytest.mark.parametrize(("transfer", "peak"), [("pq", 10_000 / 203), ("hlg", 1 / 0.2649626)])
def test_a_clip_becomes_linear_without_the_network_when_asked(clip, tmp_path, transfer, peak):
    codec = {"codec": "libx264", "pixels": "yuv420p10le", "options": {"qp": "0"}}
    path = clip("a.mp4", [steps(transfer)] * 3, **codec, tags={**TAGS, "color_trc": TRC[transfer]})
    refused = ldr2hdr("convert", path, "-o", tmp_path / "no")
    said = " ".join(refused.output.split())
    assert refused.exit_code == 1 and "is HDR already" in said and "--from-hdr" in said
    done = ldr2hdr("convert", path, "-o", tmp_path / "out", "--from-hdr", "--float", "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert any("1.0 (ITU-R BT.2408)" in event.get("message", "") for event in events)
    assert [event["clipped"] for event in events if event["event"] == "done"] == [0, 0, 0]
    pixels, _, attributes = read_exr(tmp_path / "out" / "a" / "a.000002.exr")
    np.testing.assert_allclose(pixels[16, [16, 48, 80]], [[0] * 3, [1] * 3, [peak] * 3], rtol=0.01, atol=1e-5)
    assert np.allclose(attributes["chromaticities"], REC2020, atol=1e-6)


def test_what_is_known_of_a_clip_is_told(clip):
    options = {"x265-params": f"lossless=1:log-level=none:{LEVELS}"}
    path = clip("a.mp4", [steps("pq")] * 3, codec="libx265", pixels="yuv420p10le", options=options,
                tags={**TAGS, "color_trc": 16})  # fmt: skip
    info = probe(path)
    assert (info.transfer, info.primaries, info.is_hdr, info.max_cll, info.max_fall) == (
        "pq",
        "bt2020",
        True,
        1000,
        400,
    )
    assert info.mastering_display == "0.005 to 1000 cd/m², R 0.68 0.32, G 0.265 0.69, B 0.15 0.06, W 0.3127 0.329"
    told = ldr2hdr("info", path)
    assert told.exit_code == 0 and "0.005 to 1000" in told.stdout and "pq" in told.stdout


@pytest.mark.parametrize("name", ["a.png", "a.avif", "a.heic"])
@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_a_still_is_refused_or_read_with_its_depth_and_primaries(tmp_path, name, transfer):
    path = tmp_path / name
    row = np.linspace(0, 1023, 64).round().astype(np.uint16)
    codes = np.tile(row[None, :, None], (48, 1, 3))
    if name.endswith("png"):
        png(path, codes * 64, 9, TRC[transfer])
    elif name.endswith("avif"):
        data = bytearray(imagecodecs.avif_encode(codes, level=100, bitspersample=10, pixelformat="444"))
        at = data.index(b"colrnclx") + 8
        data[at : at + 4] = struct.pack(">HH", 9, TRC[transfer])  # primaries and transfer
        path.write_bytes(data)
    else:
        heif = pytest.importorskip("pillow_heif")
        image = heif.from_bytes("RGB;16", (64, 48), (codes << 6).tobytes())
        image.save(path, quality=-1, chroma=444, matrix_coefficients=0, color_primaries=9,
                   transfer_characteristics=TRC[transfer])  # fmt: skip
    with pytest.raises(Ldr2hdrError, match=rf"HDR already: its transfer is {transfer.upper()}.*--from-hdr"):
        read_still(path)
    info, frame = read_still(path, from_hdr=True)
    assert info.transfer == transfer and info.is_hdr and info.chromaticities == REC2020 and probe(path) == info
    top = 65535 / 64 if name.endswith("png") else 1023
    assert np.abs(frame.pixels[24] - row[:, None] / top).max() < 1.5 / 1023


@pytest.mark.parametrize("bits", [8, 16])
def test_code_points_name_primaries_without_hdr_too(tmp_path, bits):
    codes = np.full((48, 64, 3), 100, np.uint8 if bits == 8 else np.uint16)
    assert read_still(png(tmp_path / "a.png", codes, 12, 13))[0].chromaticities == P3D65
    data = bytearray(imagecodecs.avif_encode(codes.astype(np.uint8), level=100))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", 9, 13)
    (tmp_path / "a.avif").write_bytes(data)
    info = read_still(tmp_path / "a.avif")[0]
    assert (info.chromaticities, info.transfer, info.is_hdr) == (REC2020, "srgb", False)


def test_light_levels_of_a_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = heif.from_bytes("RGB;16", (64, 48), bytes(64 * 48 * 6))
    mastering = {
        "display_primaries_x": (13250, 7500, 34000), "display_primaries_y": (34500, 3000, 16000),
        "white_point_x": 15635, "white_point_y": 16450,
        "max_display_mastering_luminance": 10_000_000, "min_display_mastering_luminance": 50,
    }  # fmt: skip
    levels = {"max_content_light_level": 1000, "max_pic_average_light_level": 400}
    image.save(tmp_path / "a.heic", color_primaries=9, transfer_characteristics=16, matrix_coefficients=9,
               mastering_display_colour_volume=mastering, content_light_level=levels)  # fmt: skip
    info = probe(tmp_path / "a.heic")
    assert (info.max_cll, info.max_fall) == (1000, 400)
    assert info.mastering_display == "0.005 to 1000 cd/m², R 0.68 0.32, G 0.265 0.69, B 0.15 0.06, W 0.3127 0.329"


def insert(data: bytes, path: tuple[bytes, ...], box: bytes) -> bytes:
    """A box at the end of the one at `path`, and the sizes of all around it enlarged (ISO 14496-12, 4.2)."""
    data, at, end = bytearray(data), 0, len(data)
    sizes = []
    for name in path:
        while at < end and bytes(data[at + 4 : at + 8]) != name:
            at += int.from_bytes(data[at : at + 4], "big")
        assert at < end, name
        sizes.append(at)
        end = at + int.from_bytes(data[at : at + 4], "big")
        at += 8 + {b"stsd": 8, b"hev1": 78, b"hvc1": 78}.get(name, 0)
    for place in sizes:
        data[place : place + 4] = (int.from_bytes(data[place : place + 4], "big") + len(box)).to_bytes(4, "big")
    return bytes(data[:end]) + box + bytes(data[end:])


@pytest.mark.parametrize(
    ("box", "note"),
    [
        # Dolby Vision Streams Within the ISO Base Media File Format, 3.2: version 1.0, profile 8, level 6, RPU, base.
        (struct.pack(">I4sBBHB", 32, b"dvvC", 1, 0, 8 << 9 | 6 << 3 | 0b101, 0x10) + bytes(19), "Dolby Vision"),
        # Apple's stereo video, ISOBMFF Extensions 0.9: vexu with eyes.
        (struct.pack(">I4sI4sI4sIB", 29, b"vexu", 21, b"eyes", 13, b"stri", 0, 3), "second view"),
    ],
)
def test_a_layer_that_is_not_read_is_named(clip, box, note):
    path = clip("a.mp4", [steps("hlg")] * 3, codec="libx265", pixels="yuv420p10le", tags={**TAGS, "color_trc": 18})
    assert not any(note in one for one in probe(path).notes)
    way = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1")
    path.write_bytes(insert(path.read_bytes(), way, box))
    info = probe(path)
    assert any(note in one for one in info.notes) and info.transfer == "hlg"
