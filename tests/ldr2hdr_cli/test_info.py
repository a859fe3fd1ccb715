"""What `describe` says of files whose contents are known."""

import io
import json
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image
from rich.console import Console

from ldr2hdr_cli.info import describe, light_statistics, render
from ldr2hdr_cli.media.exr import frame_attributes, write_exr
from ldr2hdr_cli.media.radiance import write_radiance
from model.checkpoint import save_network
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet, NetworkConfig
from tests import cli


def attributes():
    return frame_attributes(
        labels={
            "chromaticities": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290),
            "colorInteropID": "lin_rec709_scene",
        },
        frame_rate=Fraction(25),
        timecode="10:00:00:05",
        pixel_aspect=1.0,
        source="plate [red].mov",
        frame_number=3,
        weights_sha256="ab" * 32,
        settings={"gamma": "2.0"},
    )


def shown(description):
    text = io.StringIO()
    Console(file=text, width=200).print(render(description))
    return text.getvalue()


def test_light_by_hand():
    pixels = np.full((10, 100, 3), 0.5, np.float32)
    pixels[0, :50] = 8.0
    pixels[0, 50:52, 1] = 2.0
    found = light_statistics(pixels)
    assert found["minimum"] == 0.5
    assert found["maximum"] == 8.0
    assert found["median"] == 0.5
    assert found["share_above_one"] == pytest.approx(52 / 1000)
    assert found["stops"] == pytest.approx(4.0, abs=1e-3)  # from 0.5 to 8
    assert (found["nan"], found["infinite"]) == (0, 0)


def test_light_counts_what_is_not_finite_and_leaves_it_out():
    pixels = np.ones((4, 4, 3), np.float32)
    pixels[0, 0, 0], pixels[1, 1], pixels[2, 2, 2] = np.nan, np.inf, -1
    found = light_statistics(pixels)
    assert (found["nan"], found["infinite"], found["minimum"], found["maximum"]) == (1, 3, -1.0, 1.0)


def test_light_of_a_large_picture_is_sampled_evenly_and_takes_no_copy_of_it(monkeypatch):
    """A picture of 9 KB took 6.7 GB: its samples as float, several times."""
    planes = [np.random.default_rng(c).uniform(0.25, 2, (1024, 1536)).astype(np.float16) for c in range(3)]
    planes[0][:, 7] = 100.0  # a sample of the same columns in each row would miss it, or see nothing else
    exact = light_statistics(planes)
    monkeypatch.setattr("ldr2hdr_cli.info._SAMPLE", 2**15)
    monkeypatch.setattr("ldr2hdr_cli.info._BAND", 2**15)
    tracemalloc.start()
    try:
        found = light_statistics(planes)
        assert tracemalloc.get_traced_memory()[1] < planes[0].nbytes
    finally:
        tracemalloc.stop()
    assert found["median"] == pytest.approx(exact["median"], abs=0.02) and found["maximum"] == 100
    assert found["stops"] == pytest.approx(exact["stops"], abs=0.1)
    assert found["share_above_one"] == exact["share_above_one"]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_picture_without_light_has_no_stops(value):
    found = light_statistics(np.full((2, 2, 3), value, np.float32))
    assert found["stops"] is None
    json.dumps(found, allow_nan=False)


def test_exr(tmp_path):
    pixels = np.full((6, 9, 3), 0.25, np.float32)
    pixels[0] = 4.0
    alpha = np.full((6, 9), 77.0, np.float32)
    write_exr(tmp_path / "a.exr", pixels, alpha, attributes(), compression="piz", premultiply=False)
    found = json.loads(json.dumps(describe(tmp_path / "a.exr"), allow_nan=False))
    assert (found["kind"], found["width"], found["height"]) == ("exr", 9, 6)
    assert found["bytes"] == (tmp_path / "a.exr").stat().st_size
    assert found["channels"] == {"R": "half", "G": "half", "B": "half", "A": "half"}
    assert found["compression"] == "piz"
    assert found["light"]["maximum"] == 4.0  # alpha is no light
    assert found["light"]["stops"] == 4.0
    assert found["attributes"]["framesPerSecond"] == "25"
    assert found["attributes"]["timeCode"] == "10:00:00:05"
    assert found["attributes"]["ldr2hdr/frame"] == "3"
    assert found["attributes"]["chromaticities"] == pytest.approx([0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290])
    text = shown(found)
    assert "plate [red].mov" in text  # not taken for markup
    assert "lin_rec709_scene" in text
    assert "16.67 %" in text  # 1 row of 6 above 1.0


def test_an_exr_that_is_not_ours(tmp_path):
    depth = np.linspace(1, 4, 12, dtype=np.float32).reshape(3, 4)
    OpenEXR.File({"compression": OpenEXR.NO_COMPRESSION}, {"depth.Z": depth}).write(str(tmp_path / "z.exr"))
    found = describe(tmp_path / "z.exr")
    assert found["channels"] == {"depth.Z": "float"}
    assert found["compression"] == "none"
    assert (found["light"]["minimum"], found["light"]["maximum"]) == (1.0, 4.0)


def test_radiance(tmp_path):
    pixels = np.full((16, 32, 3), 0.5, np.float32)
    pixels[:4] = 8.0
    write_radiance(tmp_path / "a.hdr", pixels, attributes())
    found = describe(tmp_path / "a.hdr")
    assert (found["kind"], found["width"], found["height"]) == ("radiance", 32, 16)
    assert found["light"]["share_above_one"] == 0.25
    assert found["light"]["stops"] == 4.0
    assert found["attributes"]["SOFTWARE"] == "ldr2hdr 0.1.0"
    assert found["attributes"]["ldr2hdr/frame"] == "3"


def test_weights(tmp_path):
    torch.manual_seed(0)
    network = MaskedUNet(NetworkConfig(base_channels=2, depth=2))
    save_network(network, tmp_path / "w.safetensors", {"ldr2hdr.status": "provisional", "ldr2hdr.licence": "CC0-1.0"})
    (tmp_path / "w.md").write_text("# Weights\n\nTrained on two\nphotographs.\n\nMore.\n")
    found = json.loads(json.dumps(describe(tmp_path / "w.safetensors"), allow_nan=False))
    assert found["kind"] == "weights"
    assert found["provisional"] is True
    assert found["parameters"] == sum(tensor.numel() for tensor in network.parameters())
    assert (found["config"]["base_channels"], found["config"]["depth"]) == (2, 2)
    assert found["metadata"] == {"licence": "CC0-1.0", "status": "provisional"}
    assert found["card"] == "Trained on two photographs."
    assert "provisional" in shown(found)
    save_network(network, tmp_path / "w.pth")
    assert describe(tmp_path / "w.pth")["provisional"] is False


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\r\n"


def info(*arguments) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of the command, which is given 200 columns."""
    done = cli.run("info", *arguments, env={"COLUMNS": "200"})
    return done.returncode, done.stdout, done.stderr


def hostile(folder: Path) -> list[Path]:
    """Escape sequences wherever a file has room for text, and in a name."""
    said = {**attributes(), "comments": f"EXR{ESCAPES}", f"own{ESCAPES}": 1.0}
    write_exr(folder / "a.exr", np.ones((4, 4, 3), np.float32), attributes=said)
    radiance = b"#?RADIANCE\nVIEW=HDR" + ESCAPES.encode().replace(b"\n", b"") + b"\n# c\x1b[2J: d\n"
    (folder / "a.hdr").write_bytes(radiance + b"FORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n\x80\x80\x80\x80")
    network = MaskedUNet(NetworkConfig(base_channels=2, depth=2))
    save_network(network, folder / "a.safetensors", {f"key{ESCAPES}": f"WEIGHTS{ESCAPES}"})
    (folder / "a.md").write_text(f"CARD{ESCAPES}")
    Image.new("RGB", (4, 4)).save(folder / f"NAME{ESCAPES.strip()}.png")
    (folder / f"GONE{ESCAPES.strip()}.exr").write_bytes(b"none")
    return sorted(folder.glob("*[!d]"))


@pytest.mark.skipif(sys.platform == "win32", reason="names have no control characters there")
def test_nothing_in_a_file_or_its_name_reaches_the_terminal_as_more_than_text(tmp_path):
    status, out, err = info(*hostile(tmp_path))
    assert status == 1  # of the one that is no EXR
    for text in (out, err):
        assert all(character.isprintable() or character == "\n" for character in text)
    for mark in ("EXR", "HDR", "WEIGHTS", "CARD", "NAME"):
        assert mark + "\\x1b]0;owned" in "".join(out.split("\n"))
    assert "GONE\\x1b]0;owned" in err


def test_json_is_all_that_info_prints(tmp_path):
    """OpenEXR says on stdout what it thinks of a damaged file; JSON has no NaN."""
    picture = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    write_exr(tmp_path / "good.exr", picture, attributes={**attributes(), "gain": float("nan")})
    (tmp_path / "cut.exr").write_bytes((tmp_path / "good.exr").read_bytes()[:9000])
    status, out, err = info("--json", tmp_path / "cut.exr", tmp_path / "good.exr")
    (found,) = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert status == 1 and found["width"] == 64 and found["attributes"]["gain"] == "nan"
    assert "cut.exr is damaged" in err


def test_an_attribute_of_a_type_without_a_name_is_said_to_be_unreadable(tmp_path):
    write_exr(tmp_path / "a.exr", np.ones((4, 4, 3), np.float32), attributes={"gain": 1.0})
    data = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "a.exr").write_bytes(data.replace(b"gain\0float", b"gain\0fl\xffat"))
    assert "unreadable" in describe(tmp_path / "a.exr")["attributes"]["gain"]


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".jpg", ".pth"])
def test_a_path_that_is_too_long_is_a_sentence(tmp_path, suffix):
    with pytest.raises(Ldr2hdrError, match="does not exist"):
        describe(tmp_path / ("x" * 5000 + suffix))


def test_a_photograph(tmp_path):
    Image.new("RGB", (20, 10), (200, 100, 50)).save(tmp_path / "a.jpg")
    found = json.loads(json.dumps(describe(tmp_path / "a.jpg"), allow_nan=False))
    assert (found["width"], found["height"], found["bit_depth"]) == (20, 10, 8)
    assert "timecode" not in found
    assert "20" in shown(found)


@pytest.mark.parametrize("name", ["a.exr", "a.hdr", "a.safetensors", "a.pth", "a.jpg"])
def test_what_it_is_not(tmp_path, name):
    with pytest.raises(Ldr2hdrError, match=name):
        describe(tmp_path / name)
    (tmp_path / name).write_text("no such thing")
    with pytest.raises(Ldr2hdrError, match=name):
        describe(tmp_path / name)
