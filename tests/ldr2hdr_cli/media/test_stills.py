"""Stills through real encoders: formats, depths, colour profiles, alpha, and what is refused."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from ldr2hdr_cli.media.colour import P3D65, REC709
from ldr2hdr_cli.media.sources import find_inputs, probe, read_still
from model.errors import Ldr2hdrError
from model.exposure import Encoding

WHITE = (0.3127, 0.3290)
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
REC2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
REC709_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def profile(primaries: tuple, gamma: float) -> bytes:
    flat = [value for x, y in primaries for value in (x, y, 1.0)]
    return imagecodecs.cms_profile("rgb", whitepoint=[*WHITE, 1.0], primaries=flat, gamma=gamma)


def colour_matrix(primaries: tuple) -> np.ndarray:
    """Linear RGB to XYZ from primaries and white, SMPTE RP 177."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([WHITE[0] / WHITE[1], 1, (1 - WHITE[0] - WHITE[1]) / WHITE[1]])
    return columns * np.linalg.solve(columns, white)


def to_srgb(codes: np.ndarray, primaries: tuple, gamma: float) -> np.ndarray:
    """Codes in [0, 1] under a matrix profile → sRGB codes, written out by hand (IEC 61966-2-1)."""
    light = (codes**gamma) @ (np.linalg.inv(colour_matrix(REC709_PRIMARIES)) @ colour_matrix(primaries)).T
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def colours(dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Patches of 8×8 pixels, so that chroma subsampling leaves their middles alone."""
    most = np.iinfo(dtype).max
    patches = np.random.default_rng(seed).integers(most // 5, most - most // 5, (4, 5, 3)).astype(dtype)
    return np.ascontiguousarray(np.kron(patches, np.ones((8, 8, 1), dtype)))


def middles(pixels: np.ndarray) -> np.ndarray:
    return pixels[4::8, 4::8]


@pytest.mark.parametrize(
    ("name", "options", "codes_off"),
    [
        ("a.jpg", {"quality": 98, "subsampling": 0}, 2),
        ("a.png", {}, 0),
        ("a.tif", {}, 0),
        ("a.bmp", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}, 2),
        ("a.gif", {}, 8),
        ("PHOTO", {"format": "JPEG", "quality": 98, "subsampling": 0}, 2),
    ],
)
def test_every_format_gives_the_same_picture(tmp_path, name, options, codes_off):
    shown = colours()
    Image.fromarray(shown).save(tmp_path / name, **options)
    (one,) = find_inputs([str(tmp_path / name)])
    assert one.kind == "still"
    plate, frame = read_still(tmp_path / name)
    assert (plate.width, plate.height, plate.bit_depth) == (40, 32, 8)
    assert plate.chromaticities == REC709 and not plate.has_alpha and frame.alpha is None
    assert frame.pixels.dtype == np.float32 and frame.pixels.shape == (32, 40, 3)
    assert np.abs(middles(frame.pixels) * 255 - middles(shown)).max() <= codes_off + 1e-3


def test_grey_and_one_bit_become_rgb(tmp_path):
    grey = colours()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=100)
    Image.fromarray(grey > 128).save(tmp_path / "bits.tif")
    for name, off in (("grey.png", 0), ("grey.jpg", 1)):
        pixels = read_still(tmp_path / name)[1].pixels
        assert np.abs(pixels * 255 - grey[..., None]).max() <= off + 1e-3
    assert (read_still(tmp_path / "bits.tif")[1].pixels == (grey > 128)[..., None]).all()


def test_cmyk_becomes_rgb(tmp_path):
    # No ink, all black, full cyan: ink subtracts (without a profile, R = (1 − C)(1 − K)).
    ink = np.zeros((8, 24, 4), np.uint8)
    ink[:, 8:16, 3], ink[:, 16:, 0] = 255, 255
    Image.fromarray(ink, "CMYK").save(tmp_path / "ink.tif")
    Image.fromarray(ink, "CMYK").save(tmp_path / "ink.jpg", quality=100)
    for name in ("ink.tif", "ink.jpg"):
        pixels = read_still(tmp_path / name)[1].pixels[4, 4::8]
        assert np.abs(pixels - [[1, 1, 1], [0, 0, 0], [0, 1, 1]]).max() < 0.02, name


def strange_curve(codes: np.ndarray) -> np.ndarray:
    """Darker than 2.2 in the shadows, lighter in the highlights: no standard's."""
    return codes**3 * 0.7 + codes * 0.3


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize(
    ("primaries", "gamma", "name"),
    [
        (ADOBE, 2.19921875, "adobergb"),
        (REC2020, 1.8, "bt2020"),
        (ADOBE, 1.8, "adobergb"),
        (((0.60, 0.35), (0.25, 0.65), (0.16, 0.08)), 2.4, "icc"),
    ],
)
def test_a_profile_of_primaries_and_a_gamma_is_kept(tmp_path, suffix, primaries, gamma, name):
    shown = colours()
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(shown).save(path, icc_profile=profile(primaries, gamma), **options)
    info, frame = read_still(path)
    assert (info.primaries, info.assumed, info.notes) == (name, (), ())
    assert info.encoding.transfer == "gamma" and info.encoding.gamma == pytest.approx(gamma, abs=1e-4)
    wanted = [*np.ravel(primaries), *WHITE]
    for found in (probe(path), info):
        assert np.allclose(found.chromaticities, wanted, atol=4e-4), name
    assert np.abs(middles(frame.pixels) - middles(shown) / 255).max() < (2.5 if suffix == "jpg" else 1e-3) / 255


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_profile_with_a_curve_of_its_own_is_converted(tmp_path, suffix):
    shown = colours()
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(shown).save(path, icc_profile=with_curve(strange_curve, ADOBE), **options)
    info, frame = read_still(path)
    assert probe(path).chromaticities == info.chromaticities == REC709 and info.encoding == Encoding("srgb")
    expected = to_srgb(strange_curve(shown / 255), ADOBE, 1)
    # A code that JPEG is off by is several in the dark, where sRGB is steeper than the profile.
    assert np.abs(middles(frame.pixels) - middles(expected)).max() < (8 if suffix == "jpg" else 1.5) / 255
    assert any("converted to sRGB" in note for note in info.notes)


def with_curve(curve: Callable[[np.ndarray], np.ndarray], primaries: tuple) -> bytes:
    """A profile whose three curves are a table of 1024 entries (ICC.1:2022, 10.6)."""
    table = np.rint(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2").tobytes()
    tag = b"curv" + bytes(4) + struct.pack(">I", 1024) + table
    base = bytearray(profile(primaries, 2.2))
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        at = base.index(name, 128)
        base[at + 4 : at + 12] = struct.pack(">II", len(base), len(tag))
    base += tag
    base[:4] = struct.pack(">I", len(base))
    return bytes(base)


def test_display_p3_is_kept_with_its_own_curve(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Display P3 is P3's primaries under sRGB's curve: the colorants are 20 bytes each in the profile's tags.
    p3 = bytearray(srgb)
    with_p3 = profile(P3, 2.2)
    for tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
        there, here = (_tag(data, tag) for data in (bytes(p3), with_p3))
        p3[there : there + 20] = with_p3[here : here + 20]
    shown = colours()
    Image.fromarray(shown).save(tmp_path / "p3.png", icc_profile=bytes(p3))
    plate, frame = read_still(tmp_path / "p3.png")
    assert plate.chromaticities == P3D65 and plate.primaries == "p3d65"
    assert np.allclose(frame.pixels, shown / 255, atol=1e-6)


def _tag(data: bytes, name: bytes) -> int:
    """Offset of a tag's data, ICC.1:2022 section 7.3."""
    at = data.index(name, 128)
    return int.from_bytes(data[at + 4 : at + 8], "big")


def test_a_broken_profile_does_not_stop_a_picture(tmp_path):
    shown = colours()
    Image.fromarray(shown).save(tmp_path / "a.png", icc_profile=b"no profile at all")
    assert np.allclose(read_still(tmp_path / "a.png")[1].pixels, shown / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_with_any_number_of_channels(tmp_path, suffix, channels):
    codes = np.random.default_rng(1).integers(0, 65536, (6, 7, channels), dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    if suffix == "tif":
        options = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        tifffile.imwrite(path, codes[..., 0] if channels == 1 else codes, photometric=_photometric(channels), **options)
    elif channels == 2:
        path.write_bytes(imagecodecs.png_encode(codes))
    else:
        order = [0] if channels == 1 else [2, 1, 0, 3][:channels]
        cv2.imwrite(str(path), codes[..., order])
    plate, frame = read_still(path)
    assert plate.bit_depth == 16
    colour = codes[..., :3] if channels > 2 else codes[..., :1]
    assert np.array_equal(np.rint(frame.pixels * 65535), np.broadcast_to(colour, (6, 7, 3)))
    assert plate.has_alpha == (channels in (2, 4))
    if frame.alpha is not None:
        assert np.array_equal(np.rint(frame.alpha * 65535), codes[..., -1])


def _photometric(channels: int) -> str:
    return "minisblack" if channels < 3 else "rgb"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_under_another_profile_are_converted_in_16_bits(tmp_path, suffix):
    codes, icc = colours(np.uint16), with_curve(strange_curve, REC2020)
    path = tmp_path / f"deep.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, codes, photometric="rgb", iccprofile=icc)
    else:
        path.write_bytes(_with_profile(imagecodecs.png_encode(codes), icc))
    plate, frame = read_still(path)
    assert plate.bit_depth == 16 and plate.chromaticities == REC709
    assert plate.notes == ("its colour profile is converted to sRGB.",)
    assert (
        np.abs(frame.pixels - to_srgb(strange_curve(codes / 65535), REC2020, 1)).max() < 0.0006
    )  # 8 bits would be off by 0.002


def _with_profile(png: bytes, icc: bytes) -> bytes:
    """An iCCP chunk after IHDR (PNG specification, 11.3.2.3)."""
    body = b"iCCP" + b"name\0\0" + zlib.compress(icc)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "avif"])
def test_alpha_is_carried_untouched_and_colour_under_it_too(tmp_path, suffix):
    shown = np.dstack([colours(), colours(seed=1)[..., 0]])
    shown[:8, :8, 3] = 0  # transparent, with a colour
    options = {"webp": {"lossless": True, "exact": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}
    Image.fromarray(shown).save(tmp_path / f"a.{suffix}", **options.get(suffix, {}))
    plate, frame = read_still(tmp_path / f"a.{suffix}")
    assert plate.has_alpha and frame.alpha is not None
    assert np.abs(frame.alpha * 255 - shown[..., 3]).max() <= (1 if suffix == "avif" else 1e-3)
    off = np.abs(middles(frame.pixels) * 255 - middles(shown)[..., :3]).max()
    assert off <= (3 if suffix == "avif" else 1e-3)


def test_several_pictures_in_one_file_are_said(tmp_path):
    pages = [Image.fromarray(colours(seed=seed)) for seed in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    plate, frame = read_still(tmp_path / "pages.tif")
    assert plate.notes == ("it has 3 pictures; the first one is converted.",)
    assert np.allclose(frame.pixels, colours(seed=0) / 255, atol=1e-6)


def hdr_inputs(folder: Path) -> dict[str, str]:
    (folder / "sun.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(60))
    (folder / "sun").write_bytes(b"#?RADIANCE\n")
    tifffile.imwrite(folder / "float.tif", np.ones((4, 4, 3), np.float32), photometric="rgb")
    png = io.BytesIO()
    Image.fromarray(colours()).save(png, "PNG")
    body = b"cICP" + bytes([9, 16, 0, 1])  # PNG third edition, 11.3.2.6: BT.2020, PQ
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    (folder / "pq.png").write_bytes(png.getvalue()[:33] + chunk + png.getvalue()[33:])
    return {"sun.exr": "HDR already", "sun": "HDR already", "float.tif": "its pixels are float", "pq.png": "PQ"}


def test_hdr_pictures_are_refused_with_the_reason(tmp_path):
    for name, reason in hdr_inputs(tmp_path).items():
        with pytest.raises(Ldr2hdrError, match=reason) as caught:
            read_still(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def claims(path: Path, picture: np.ndarray, tags: dict[str, int], **options) -> Path:
    """A small TIFF whose header claims something else of it."""
    spare = [(65000, "I", 1, 1, False)]
    tifffile.imwrite(path, picture, photometric="rgb", extratags=spare, **options)
    imagedepth = struct.pack("<HHII", 32997, 4, 1, 1)  # of SGI's volumes; tifffile writes it in none but those
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 65000, 4, 1, 1), imagedepth))
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in tags.items():
            file.pages[0].tags[name].overwrite(value)
    return path


HOSTILE = {
    "volume": ({"ImageDepth": 4000}, {}, "volume of 4000 slices"),
    "samples": ({"SamplesPerPixel": 60000, "ImageWidth": 1000, "ImageLength": 1000}, {}, "of 60000 samples"),
    "tiles": ({"TileWidth": 60000, "TileLength": 60000}, {"tile": (16, 16)}, "tiles of 60000×60000 pixels"),
    "size": ({"ImageWidth": 60000, "ImageLength": 60000}, {}, "60000×60000 pixels"),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_tiff_that_claims_more_than_the_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch, case, dtype):
    """Samples, slices and tiles count as width and height do."""
    tags, options, said = HOSTILE[case]
    path = claims(tmp_path / "a.tif", np.zeros((16, 16, 3), dtype), tags, **options)
    decoded = []
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: decoded.append("tifffile"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: decoded.append("Pillow"))
    for read in (probe, read_still):
        with pytest.raises(Ldr2hdrError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value) and decoded == []


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_probe_decodes_no_16_bit_picture_and_says_the_same(tmp_path, suffix, channels):
    codes = np.zeros((1200, 1000, channels), np.uint16)
    path = tmp_path / f"deep.{suffix}"
    if suffix == "tif":
        turned = [(274, "H", 1, 6, False)]  # Orientation, upright after a quarter turn
        picture = codes[..., 0] if channels == 1 else codes
        tifffile.imwrite(path, picture, photometric=_photometric(channels), compression="zlib", extratags=turned)
    else:
        path.write_bytes(imagecodecs.png_encode(codes))
    probe(path)  # what is imported does not count
    tracemalloc.start()
    try:
        plate = probe(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21  # the codes alone are 2.4 MB or more
    finally:
        tracemalloc.stop()
    assert plate == read_still(path)[0]
    assert (plate.width, plate.height) == ((1200, 1000) if suffix == "tif" else (1000, 1200))


def test_a_photograph_needs_none_of_the_readers_of_other_formats(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.jpg")
    code = (
        "import sys; from ldr2hdr_cli.media.stills import probe_still, read_still; from pathlib import Path;"
        "probe_still(Path(sys.argv[1])); read_still(Path(sys.argv[1]));"
        "print([name for name in ('imagecodecs', 'tifffile', 'cv2', 'PIL.ImageCms') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "a.jpg"], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_a_tiff_of_16_bits_says_of_its_camera_what_one_of_8_does(tmp_path):
    found = []
    for kind in (np.uint8, np.uint16):
        tags = [(271, "s", 0, "Maker", True), (272, "s", 0, "Model", True)]
        path = tmp_path / f"{np.dtype(kind)}.tif"
        tifffile.imwrite(path, np.ones((8, 8, 3), kind), photometric="rgb", extratags=tags, metadata=None)
        found.append(read_still(path)[0].metadata)
        assert probe(path).metadata == found[-1]
    assert found[0] == found[1] == {"cameraMake": "Maker", "cameraModel": "Model"}
