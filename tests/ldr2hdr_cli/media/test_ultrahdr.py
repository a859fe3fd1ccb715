"""Ultra HDR JPEGs in the eyes of libultrahdr and Pillow."""

import io
import struct
from xml.etree import ElementTree

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, MpoImagePlugin

from ldr2hdr_cli.media import ultrahdr
from ldr2hdr_cli.media.colour import P3D65, REC709, conversion
from ldr2hdr_cli.media.display_light import DisplayLight
from ldr2hdr_cli.media.ultrahdr import gain_map, write_ultrahdr
from model.errors import Ldr2hdrError
from model.exposure import encode, linearise

ITEM = "{http://ns.google.com/photos/1.0/container/item/}"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Hallstatt"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.fixture
def photo(tmp_path):
    """A JPEG of a ramp beside a blown-out square, with all the metadata that a camera writes."""

    def make(name="photo.jpg", orientation=1, **how):
        across = np.linspace(20, 225, 64)
        codes = np.stack([np.tile(across, (48, 1))] * 3, -1)
        codes[:, 64 - 24 :] = 255
        codes[30:, :24] = [200, 90, 40]
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Camera"
        given = {"quality": 95, "subsampling": 0, "exif": exif.tobytes()}
        given["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        Image.fromarray(codes.astype(np.uint8)).save(tmp_path / name, **{**given, "xmp": XMP, **how})
        return tmp_path / name

    return make


def lit(source):
    """Its scene-linear pixels as stored, with another light in each channel of what is clipped."""
    linear = linearise(np.asarray(Image.open(source).convert("RGB")).astype(np.float32) / 255, "srgb")
    return np.where(linear.min(-1, keepdims=True) > 0.99, linear * np.float32([4, 3, 2]), linear)


def without(data, signature):
    """The file without the segments that begin with `signature`, as a reader of the other metadata sees it."""
    while (at := data.find(signature)) >= 0:
        # Another text of the same length: sizes and places in the index stay true.
        data = data[:at] + b"-" * len(signature) + data[at + len(signature) :]
    return data


def seen(data):
    return imagecodecs.ultrahdr_decode(data, dtype="float16", boost=64.0)[..., :3].astype(np.float32)


def test_libultrahdr_gives_the_light_back_by_either_metadata(photo, tmp_path):
    source, out = photo(), tmp_path / "out.jpg"
    hdr = lit(source)
    write_ultrahdr(out, hdr, source, quality=100)
    shown = DisplayLight().nits(hdr) / 203
    data = out.read_bytes()
    for readable in (
        data,
        without(data, b"urn:iso:std:iso:ts:21496:-1\0"),
        without(data, b"http://ns.google.com/phot"),
    ):
        light = seen(readable)
        np.testing.assert_allclose(light[:, 48:], shown[:, 48:], rtol=0.02)  # of steps of 1/128 stop, and half floats
        # It comes from YCbCr to RGB in another way than Pillow: by up to two codes of the base.
        np.testing.assert_allclose(encode(light[:, :32], "srgb"), encode(shown[:, :32], "srgb"), atol=2 / 255)
    assert light[:, 48:].max() > 3


def test_base_is_the_source_byte_for_byte(photo, tmp_path):
    source, out = photo(), tmp_path / "out.jpg"
    write_ultrahdr(out, lit(source), source)
    whole, data = source.read_bytes(), out.read_bytes()
    picture = whole[whole.index(b"\xff\xdb") :]  # from the first quantisation table to the end
    assert picture in data
    with Image.open(source) as before, Image.open(out) as after:
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
        assert after.info["icc_profile"] == before.info["icc_profile"]
        assert after.getexif()[0x010F] == "Camera"
        xmp = ElementTree.fromstring(after.info["xmp"])
    assert [*xmp[0][0].attrib.values()] == ["", "Hallstatt"]
    items = [dict(item.attrib) for item in xmp.iter("{http://ns.google.com/photos/1.0/container/}Item")]
    semantics, lengths = ([item.get(ITEM + name) for item in items] for name in ("Semantic", "Length"))
    assert semantics == ["Primary", "GainMap"]
    assert data[-int(lengths[1]) :][:3] == b"\xff\xd8\xff"


def test_pillow_finds_both_pictures_by_the_index(photo, tmp_path):
    source, out = photo(), tmp_path / "out.jpg"
    hdr = lit(source)
    write_ultrahdr(out, hdr, source, {"ldr2hdr/version": "1"}, quality=100)
    shown = DisplayLight().nits(hdr) / np.float32(203)
    expected = gain_map(linearise(np.asarray(Image.open(source)).astype(np.float32) / 255, "srgb"), shown)
    with MpoImagePlugin.MpoImageFile(out) as pictures:
        assert pictures.n_frames == 2
        pictures.seek(1)
        codes = np.asarray(pictures)
        assert pictures.info["comment"] == b'{"ldr2hdr/version": "1"}'
    assert np.abs(codes.astype(int) - expected.codes).max() <= 3
    np.testing.assert_array_equal(codes[:, :32], expected.codes[:, :32])  # a gain of 1 stays exactly that


@pytest.mark.parametrize("orientation", range(1, 9))
def test_map_lies_as_the_base_is_stored(photo, tmp_path, orientation):
    source, out = photo(orientation=orientation), tmp_path / "out.jpg"
    stored = lit(source)
    upright = cv2.imdecode(np.fromfile(source, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]  # OpenCV applies the orientation
    linear = linearise(upright.astype(np.float32) / 255, "srgb")
    hdr = np.where(linear.min(-1, keepdims=True) > 0.99, linear * np.float32([4, 3, 2]), linear)
    write_ultrahdr(out, hdr, source, quality=100)
    expected = DisplayLight().nits(stored) / 203
    np.testing.assert_allclose(seen(out.read_bytes())[:, 48:], expected[:, 48:], rtol=0.02)


def test_earlier_gain_map_and_what_follows_the_picture_are_replaced(photo, tmp_path):
    source, first, second = photo(), tmp_path / "first.jpg", tmp_path / "second.jpg"
    write_ultrahdr(first, lit(source), source)
    first.write_bytes(first.read_bytes() + b"a motion photo's film")
    write_ultrahdr(second, lit(source), first)
    write_ultrahdr(tmp_path / "again.jpg", lit(source), source)
    data = second.read_bytes()
    assert data.count(b"urn:iso:std:iso:ts:21496:-1") == 2  # one in each picture
    assert data.count(b"<Container:Directory>") == 1
    assert data.count(b"MPF\0") == 1
    assert b"Hallstatt" in data
    assert b"film" not in data
    assert len(data) == len((tmp_path / "again.jpg").read_bytes())
    np.testing.assert_array_equal(seen(data), seen((tmp_path / "again.jpg").read_bytes()))


@pytest.mark.parametrize("chromaticities", [REC709, P3D65])
def test_png_becomes_a_base_in_srgb(photo, tmp_path, chromaticities):
    source, out = photo("photo.png"), tmp_path / "out.jpg"
    ldr = np.asarray(Image.open(source)).astype(np.float32) / 255
    hdr, matrix = lit(source), np.array(conversion(chromaticities, REC709) or np.eye(3))
    write_ultrahdr(out, hdr, source, ldr=ldr, chromaticities=chromaticities, quality=100)
    with Image.open(out) as base:
        assert "icc_profile" not in base.info
        assert base.getexif()[0x010F] == "Camera"
        expected = encode((linearise(ldr, "srgb") @ matrix.T.astype(np.float32)).clip(0, 1), "srgb")
        assert np.abs(np.asarray(base) / 255.0 - expected).max() < 0.03
    np.testing.assert_allclose(
        seen(out.read_bytes())[:, 48:], DisplayLight().nits(hdr, matrix)[:, 48:] / 203, rtol=0.03
    )


def test_black_and_grey_pictures(tmp_path):
    source, out = tmp_path / "grey.jpg", tmp_path / "out.jpg"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(source)
    black = np.zeros((16, 16, 3), np.float32)
    write_ultrahdr(out, black, source, ldr=black)
    assert seen(out.read_bytes()).max() == 0


def test_xmp_that_leaves_no_room_is_kept(photo, tmp_path):
    full = XMP.replace(b"Hallstatt", b"H" * (65_000 - len(XMP)))
    source, out = photo(xmp=full), tmp_path / "out.jpg"
    write_ultrahdr(out, lit(source), source)
    assert full in out.read_bytes()
    assert seen(out.read_bytes()).max() > 3  # by ISO's metadata


def test_cut_off_source_is_refused_and_nothing_is_written(photo, tmp_path):
    source, out = photo(), tmp_path / "out.jpg"
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(Ldr2hdrError, match=r"photo\.jpg cannot be the base of an Ultra HDR JPEG \(.*use --format avif"):
        write_ultrahdr(out, np.ones((48, 64, 3), np.float32), source)
    assert not out.exists()


def test_metadata_in_the_layout_of_iso_21496():
    made = ultrahdr.GainMap(np.zeros((8, 8, 3), np.uint8), -0.5, 2.0, 1.5)
    data = ultrahdr._map_metadata(made)
    versions, flags, low, _, high, _ = data[:4], data[4], *struct.unpack(">IIII", data[5:21])
    assert (versions, flags, low, high) == (b"\0\0\0\0", 0xC0, 0, 3)
    assert len(data) == 21 + 3 * 40
    for channel in range(3):
        values = struct.unpack(">iIiIIIiIiI", data[21 + 40 * channel : 61 + 40 * channel])
        assert values == (-1, 2, 2, 1, 1, 1, 1, 64, 1, 64)


def test_same_bytes_each_time(photo, tmp_path):
    source = photo()
    for name in ("a.jpg", "b.jpg"):
        write_ultrahdr(tmp_path / name, lit(source), source)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    assert io.BytesIO((tmp_path / "a.jpg").read_bytes()).read(2) == b"\xff\xd8"


def test_a_tiff_gives_its_camera_and_not_its_layout_to_the_jpeg(tmp_path):
    """Its XMP alone, 80 kB of an editor's history, is more than a JPEG's EXIF may be."""
    codes = np.full((32, 48, 3), 30000, np.uint16)
    tags = [(700, "B", 80_000, bytes(80_000), True), (271, "s", 0, "Maker", True)]
    tifffile.imwrite(tmp_path / "a.tif", codes, photometric="rgb", extratags=tags, metadata=None)
    pixels = np.full((32, 48, 3), 0.2, np.float32)
    write_ultrahdr(tmp_path / "a.jpg", pixels, tmp_path / "a.tif", ldr=codes / np.float32(65535))
    with Image.open(tmp_path / "a.jpg") as image:
        assert dict(image.getexif()) == {271: "Maker", 305: "tifffile.py"}


def test_what_exif_says_beyond_the_camera_goes_along_but_for_notes_that_do_not_fit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0x829A: 0.5, 0x927C: bytes(70_000)})  # ExposureTime, MakerNote
    exif.get_ifd(0x8825)[1] = "N"
    codes = np.full((32, 48, 3), 90, np.uint8)
    Image.fromarray(codes).save(tmp_path / "a.png", exif=exif)
    write_ultrahdr(
        tmp_path / "a.jpg",
        np.full((48, 32, 3), 0.2, np.float32),
        tmp_path / "a.png",
        ldr=np.full((48, 32, 3), 90 / 255, np.float32),
    )
    with Image.open(tmp_path / "a.jpg") as image:
        found = image.getexif()
        assert found.get(0x0112, 1) == 1 and dict(found.get_ifd(0x8825)) == {1: "N"}
        assert dict(found.get_ifd(0x8769)) == {0x829A: 0.5}
