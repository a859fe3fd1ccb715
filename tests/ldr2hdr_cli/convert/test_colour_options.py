"""Colour space, alpha, mask and metadata of results, as OpenImageIO and OpenColorIO find them; names of inputs."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from PIL import Image, TiffImagePlugin
from typer.testing import CliRunner

import ldr2hdr
from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.exr import read_exr
from model.errors import Ldr2hdrError

oiio = pytest.importorskip("OpenImageIO")
ocio = pytest.importorskip("PyOpenColorIO")


def codes(channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(5).integers(5, 230, (4, 5, channels), dtype=np.uint8)
    values[0, :, :3] = 255
    return np.ascontiguousarray(np.kron(values, np.ones((4, 4, 1), np.uint8)))


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(codes()).save(path)
    return path


def convert(source: Path, name: str = "out", **options: Any) -> Path:
    events = list(ldr2hdr.convert(source, source.parent / name, ldr2hdr.ConvertOptions(method="clip", **options)))
    (done,) = (event for event in events if isinstance(event, ldr2hdr.Done))
    return done.output


def opened(path: Path) -> tuple[Any, np.ndarray]:
    picture = oiio.ImageBuf(str(path))
    return picture.spec(), picture.get_pixels(oiio.FLOAT)


@pytest.mark.parametrize(
    ("colorspace", "name"),
    [("rec709", "lin_rec709_scene"), ("rec2020", "lin_rec2020_scene"), ("acescg", "lin_ap1_scene"),
     ("aces2065-1", "lin_ap0_scene"), ("p3-d65", "lin_p3d65_scene")],
)  # fmt: skip
def test_a_colour_space_is_converted_to_as_opencolorio_does_it(photo, colorspace, name):
    _, source = opened(convert(photo, "source", float_=True))
    spec, found = opened(convert(photo, colorspace=colorspace))
    assert spec.get_string_attribute("colorInteropID") == name
    config = ocio.Config.CreateFromFile("ocio://default")
    (target,) = (space.getName() for space in config.getColorSpaces() if space.getInteropID() == name)
    config.getProcessor("Linear Rec.709 (sRGB)", target).getDefaultCPUProcessor().applyRGB(source)
    assert np.abs(found - source).max() < 1e-3  # half has eleven bits
    header = read_exr(photo.parent / "out" / "photo.exr")[2]
    assert OpenEXR.checkColorMetadata(header) == OpenEXR.ColorMetadataWarning.OK


def test_an_aces_container_follows_st_2065_4(photo):
    result = convert(photo, colorspace="aces2065-1")
    spec, _ = opened(result)
    assert spec.get_int_attribute("acesImageContainerFlag") == 1
    assert spec.get_string_attribute("compression") == "none"
    assert spec.format == oiio.HALF and spec.channelnames == ("R", "G", "B")
    assert np.allclose(spec.getattribute("chromaticities"), [0.7347, 0.2653, 0, 1, 0.0001, -0.077, 0.32168, 0.33767])
    data = result.read_bytes()
    assert data[4:8] == b"\2\0\0\0"  # one part, scan lines, short names
    at = data.index(b"channels\0chlist\0")
    assert data[at + 20 : at + 22] == b"B\0"  # in alphabetical order


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colorspace": "aces2065-1", "float_": True}, "omit --float"),
        ({"colorspace": "aces2065-1", "format": "hdr"}, "omit --format hdr"),
        ({"colorspace": "aces2065-1", "channel": "mask"}, "omit --channel"),
        ({"format": "hdr", "channel": "mask"}, "omit --format hdr"),
        ({"ocio": "ocio://default"}, "go together"),
        ({"ocio_space": "ACEScg"}, "go together"),
        ({"ocio": "ocio://default", "ocio_space": "ACEScg", "colorspace": "acescg"}, "omit one"),
        ({"ocio": "ocio://default", "ocio_space": "Mauve"}, "no such colour space; it has .*ACEScg"),
        ({"ocio": "nowhere.ocio", "ocio_space": "ACEScg"}, r"nowhere\.ocio cannot be read"),
    ],
)
def test_options_that_exclude_each_other_are_misuse(photo, options, says):
    with pytest.raises(Ldr2hdrError, match=says):
        convert(photo, **options)


def test_any_space_of_a_configuration(photo):
    _, source = opened(convert(photo, "source", float_=True))
    spec, found = opened(convert(photo, ocio="ocio://studio-config-latest", ocio_space="ARRI LogC4"))
    config = ocio.Config.CreateFromFile("ocio://studio-config-latest")
    config.getProcessor("Linear Rec.709 (sRGB)", "ARRI LogC4").getDefaultCPUProcessor().applyRGB(source)
    assert np.abs(found - source).max() < 1e-3
    assert spec.get_string_attribute("colorInteropID") == "ocio:arrilogc4_awg4_scene"
    assert spec.get_string_attribute("ldr2hdr/ocio") == "ARRI LogC4 of ocio://studio-config-latest"
    assert spec.getattribute("chromaticities") is None


def test_a_configuration_without_opencolorio_names_the_extra(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)
    with pytest.raises(Ldr2hdrError, match=r"pip install 'ldr2hdr\[ocio\]'"):
        convert(photo, ocio="ocio://default", ocio_space="ACEScg")


def test_gamma_is_not_labelled_as_linear_unless_the_file_says_so(photo):
    spec, _ = opened(convert(photo, transfer="gamma"))
    assert not spec.get_string_attribute("colorInteropID")
    assert spec.get_string_attribute("ldr2hdr/transfer") == "gamma2"
    assert opened(convert(photo, "bt1886", transfer="bt1886"))[0].get_string_attribute("colorInteropID")


def test_alpha_is_associated_for_its_readers(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(codes(4)).save(path)
    results = {alpha: convert(path, alpha, alpha=alpha, float_=True) for alpha in ("premultiplied", "straight")}
    (spec, multiplied), (_, straight) = (opened(path) for path in results.values())
    assert spec.alpha_channel == 3
    assert np.allclose(multiplied[..., :3], straight[..., :3] * straight[..., 3:], atol=1e-6)
    undone = oiio.ImageBufAlgo.unpremult(oiio.ImageBuf(str(results["premultiplied"]))).get_pixels(oiio.FLOAT)
    assert np.allclose(undone, straight, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
def test_what_is_made_up_is_a_channel_that_nobody_takes_for_alpha(tmp_path, channels):
    path = tmp_path / "a.png"
    shown = codes(channels)
    Image.fromarray(shown).save(path)
    spec, found = opened(convert(path, channel="mask"))
    assert spec.channelnames == (*"RGBA"[:channels], "reconstructed.Y")
    assert spec.alpha_channel == (3 if channels == 4 else -1)
    assert np.array_equal(found[..., -1], (shown[..., :3] == 255).all(2))


def exif() -> Image.Exif:
    made = Image.Exif()
    ratio = TiffImagePlugin.IFDRational
    made.update({0x010F: "Leica", 0x0110: "Q3", 0x8298: "(c) Ada", 0x013B: "Ben", 0x010E: "A quay"})
    made.get_ifd(0x8769).update(
        {0x829A: ratio(1, 250), 0x829D: ratio(28, 10), 0x8827: 400, 0x9003: "2024:05:06 07:08:09", 0x9011: "+02:00",
         0xA434: "Summilux", 0x920A: ratio(28, 1)}
    )  # fmt: skip
    made.get_ifd(0x8825).update(
        {1: "N", 2: (48.0, 12.0, 30.0), 3: "W", 4: (16.0, 30.0, 0.0), 5: b"\0", 6: ratio(183, 1)}
    )
    return made


def test_what_the_camera_says_has_openexr_s_names(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(codes()).save(path, exif=exif())
    attributes = read_exr(convert(path))[2]
    expected = {
        "cameraMake": "Leica", "cameraModel": "Q3", "owner": "(c) Ada", "comments": "A quay", "lensModel": "Summilux",
        "expTime": 1 / 250, "aperture": 2.8, "isoSpeed": 400.0, "nominalFocalLength": 28.0,
        "capDate": "2024:05:06 07:08:09", "utcOffset": -7200.0,
        "latitude": 48.2083333, "longitude": -16.5, "altitude": 183.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert attributes[name] == (value if isinstance(value, str) else pytest.approx(value)), name
    spec, _ = opened(tmp_path / "out" / "a.exr")
    assert spec.get_float_attribute("ExposureTime") == pytest.approx(1 / 250)
    assert spec.get_string_attribute("Copyright") == "(c) Ada"
    left = read_exr(convert(path, "without", metadata=False))[2]
    assert not set(expected) & set(left)


def test_xmp_says_what_exif_does_not(tmp_path):
    packet = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
      xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Make="Canon" exif:ExposureTime="1/60" exif:FNumber="0/0">
    <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">Cl\xc3\xa9o</rdf:li></rdf:Alt></dc:rights>
    <exif:ISOSpeedRatings><rdf:Seq><rdf:li>800</rdf:li></rdf:Seq></exif:ISOSpeedRatings>
    </rdf:Description></rdf:RDF></x:xmpmeta>"""
    made = Image.Exif()
    made[0x010F] = "Leica"
    Image.fromarray(codes()).save(tmp_path / "a.jpg", exif=made, xmp=packet)
    found = read_exr(convert(tmp_path / "a.jpg"))[2]
    assert (found["cameraMake"], found["owner"], found["isoSpeed"]) == ("Leica", "Cléo", 800.0)
    assert found["expTime"] == pytest.approx(1 / 60) and "aperture" not in found


@pytest.mark.parametrize("how", ["stdin", "stdin, NUL", "file", "list -"])
def test_names_of_inputs_from_a_list(tmp_path, how):
    for name in ("a b.png", "-c.png", "näme.png"):
        Image.fromarray(codes()).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("a b.png", "-c.png", "näme.png")]
    (tmp_path / "list.txt").write_text("\r\n".join(paths) + "\n", "utf-8")
    given, text = {
        "stdin": (["-"], "\n".join(paths) + "\n"),
        "stdin, NUL": (["-"], "\0".join(paths) + "\0"),
        "file": (["--list", str(tmp_path / "list.txt")], ""),
        "list -": (["--list", "-"], "\n".join(paths)),
    }[how]
    done = CliRunner().invoke(app, ["convert", *given, "-o", str(tmp_path / "out"), "--method", "clip"], input=text)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").glob("*.exr")) == ["-c.exr", "a b.exr", "näme.exr"]


def test_an_empty_list_and_no_input_at_all_are_misuse(tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(Ldr2hdrError, match="is empty"):
        CliRunner().invoke(app, ["convert", "--list", str(tmp_path / "list.txt"), "-o", "x"], catch_exceptions=False)
    done = CliRunner().invoke(app, ["convert", "-o", str(tmp_path)])
    assert done.exit_code == 2 and "INPUT" in done.output


def test_what_is_assumed_is_said_once_for_a_sequence_and_for_each_photograph(tmp_path):
    for number in range(3):
        Image.fromarray(codes()).save(tmp_path / f"plate.{number:04d}.png")
    options = ldr2hdr.ConvertOptions(method="clip")
    for source, count in ((tmp_path / "plate.%04d.png", 1), (tmp_path, 3)):
        events = list(ldr2hdr.convert(source, tmp_path / "out" / str(count), options))
        notes = [event.message for event in events if isinstance(event, ldr2hdr.Note)]
        assert len([note for note in notes if note.endswith("sRGB is assumed.")]) == count
    other = ldr2hdr.ConvertOptions(method="clip", transfer="srgb", alpha="straight")
    said = [
        event.message
        for event in ldr2hdr.convert(tmp_path, tmp_path / "out" / "3", other)
        if isinstance(event, ldr2hdr.Note)
    ]
    assert len([note for note in said if "transfer auto, now srgb" in note and "made again" in note]) == 1
