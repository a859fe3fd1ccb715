"""docs/colour.md's table: for each kind of file what was read, assumed and written, and the way back to its codes.

Each kind is made here, converted by `ldr2hdr.convert`, and read by OpenImageIO; OpenColorIO then looks at it through
the inverse of the file's own curve. A new kind is one more entry of KINDS; `python -m
tests.ldr2hdr_cli.media.test_colour_kinds` writes the table anew.
"""

import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, features

import ldr2hdr
from ldr2hdr_cli.media.sources import probe
from tests.conftest import write_clip
from tests.ldr2hdr_cli.media.test_stills import profile, strange_curve, to_srgb, with_curve

oiio = pytest.importorskip("OpenImageIO")
pillow_heif = pytest.importorskip("pillow_heif")
ocio = pytest.importorskip("PyOpenColorIO")

DOCS = Path(__file__).resolve().parents[3] / "docs" / "colour.md"
HEAD = "| Kind of file | Read | Assumed | Written |\n|---|---|---|---|\n"
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
D50 = (0.3457, 0.3585)
SRGB_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Transform = Any


@dataclass(frozen=True)
class Kind:
    """A kind of file, and the view through which its result must give back its codes.

    make: writes the file and returns its codes, H×W×3 in [0, 1]. view: a colour space of OpenColorIO's studio
    configuration, or a curve, where that has none for these primaries.
    """

    title: str
    name: str
    make: Callable[[Path], np.ndarray]
    view: str | Transform
    options: Mapping[str, Any] = field(default_factory=dict)


def patches(depth: type = np.uint8, channels: int = 3) -> np.ndarray:
    """Patches of 8×8 pixels, darker than what is clipped."""
    most = np.iinfo(depth).max
    values = np.random.default_rng(7).integers(most // 50, int(most * 0.9), (4, 5, channels)).astype(depth)
    return np.ascontiguousarray(np.kron(values, np.ones((8, 8, 1), depth)))


def power(value: float) -> Transform:
    return ocio.ExponentTransform([1 / value] * 3 + [1.0])


def camera() -> Transform:
    """BT.709-6, item 1.2, as OpenColorIO writes a curve with a toe."""
    curve = ocio.ExponentWithLinearTransform([1 / 0.45] * 3 + [1.0], [0.099] * 3 + [0.0])
    curve.setDirection(ocio.TransformDirection.TRANSFORM_DIR_INVERSE)
    return curve


def still(**how: Any) -> Callable[[Path], np.ndarray]:
    """By Pillow; its own decoder says what the codes are, after a lossy format too."""

    def make(path: Path) -> np.ndarray:
        grey, channels = how.get("grey", False), how.get("channels", 3)
        shown = patches(channels=channels)
        if channels == 4:
            shown[..., 3] = np.maximum(shown[..., 3], 100)
        options = {name: value for name, value in how.items() if name not in ("grey", "channels")}
        Image.fromarray(shown[..., 0] if grey else shown).save(path, **options)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float64) / 255

    return make


def heic(**how: Any) -> Callable[[Path], np.ndarray]:
    """By libheif, without loss."""

    def make(path: Path) -> np.ndarray:
        image = Image.fromarray(patches())
        image.info.update(how)
        pillow_heif.from_pillow(image).save(path, quality=-1, chroma="444", matrix_coefficients=0)
        return patches() / 255

    return make


def pq() -> Transform:
    """SMPTE ST 2084 over 100 cd/m² as OpenColorIO has it, of light whose 1.0 is 203 cd/m² (ITU-R BT.2408)."""
    curve = ocio.BuiltinTransform("CURVE - LINEAR_to_ST-2084")
    return ocio.GroupTransform([ocio.MatrixTransform.Scale([2.03, 2.03, 2.03, 1.0]), curve])


def exif(**tags: int) -> bytes:
    made = Image.Exif()
    made[0x010F], made[0x0110] = "Camera works", "One"
    made.get_ifd(0x8769)[0xA001] = tags["colour_space"]
    if tags.get("adobe"):
        made.get_ifd(0x8769)[0xA005] = {1: "R03"}
    return made.tobytes()


def with_p3(icc: bytes) -> bytes:
    """Display P3: P3's colorants under sRGB's curve."""
    data, other = bytearray(icc), profile(P3, 2.2)
    for tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
        (there,), (here,) = (struct.unpack_from(">I", one, one.index(tag, 128) + 4) for one in (bytes(data), other))
        data[there : there + 20] = other[here : here + 20]
    return bytes(data)


def prophoto() -> bytes:
    flat = [value for x, y in PROPHOTO for value in (x, y, 1.0)]
    return imagecodecs.cms_profile("rgb", whitepoint=[*D50, 1.0], primaries=flat, gamma=1.8)


def deep_tiff(icc: bytes | None) -> Callable[[Path], np.ndarray]:
    def make(path: Path) -> np.ndarray:
        codes = patches(np.uint16)
        tifffile.imwrite(path, codes, photometric="rgb", iccprofile=icc)
        return codes / 65535

    return make


def deep_png(path: Path) -> np.ndarray:
    codes = patches(np.uint16)
    cv2.imwrite(str(path), codes[..., ::-1])
    return codes / 65535


def chunks(*made: tuple[bytes, bytes]) -> Callable[[Path], np.ndarray]:
    """A PNG with chunks after IHDR."""

    def make(path: Path) -> np.ndarray:
        codes = patches()
        png = imagecodecs.png_encode(codes)
        inserted = b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in made
        )
        path.write_bytes(png[:33] + inserted + png[33:])
        return codes / 255

    return make


def converted(path: Path) -> np.ndarray:
    Image.fromarray(patches()).save(path, icc_profile=with_curve(strange_curve, ADOBE))
    return to_srgb(strange_curve(patches() / 255), ADOBE, 1)


def yuv(red: float, blue: float, bits: int = 8, *, full: bool = False, **how: Any) -> Callable[[Path], np.ndarray]:
    """A clip in 4:4:4, by the luma weights of its matrix; the codes by hand (BT.709-6, items 3.2 to 3.4, and 4)."""

    def make(path: Path) -> np.ndarray:
        random, unit = np.random.default_rng(3), 2 ** (bits - 8)
        kind = np.uint8 if bits == 8 else np.uint16
        luma = random.integers(70 * unit, 190 * unit, (4, 5))
        chroma = random.integers(108 * unit, 148 * unit, (2, 4, 5))
        planes = tuple(np.kron(plane, np.ones((8, 8), int)).astype(kind) for plane in (luma, *chroma))
        write_clip(path, [planes], **{"pixels": "yuv444p" if bits == 8 else f"yuv444p{bits}le", **how})
        light = (planes[0] - (0 if full else 16.0 * unit)) / (255 if full else 219 * unit)
        cb, cr = ((plane - 128.0 * unit) / (255 if full else 224 * unit) for plane in planes[1:])
        r, b = light + 2 * (1 - red) * cr, light + 2 * (1 - blue) * cb
        return np.stack([r, (light - red * r - blue * b) / (1 - red - blue), b], 2)

    return make


def tags(primaries: int, transfer: int, matrix: int, full: bool = False) -> dict[str, int]:
    return {
        "color_primaries": primaries, "color_trc": transfer, "colorspace": matrix, "color_range": 2 if full else 1,
    }  # fmt: skip


def rgb_clip(**how: Any) -> Callable[[Path], np.ndarray]:
    def make(path: Path) -> np.ndarray:
        write_clip(path, [patches()], pixels="bgr0", layout="rgb24", **how)
        return patches() / 255

    return make


SRGB_VIEW, P3_VIEW, CAMERA_VIEW = "sRGB Encoded Rec.709 (sRGB)", "sRGB Encoded P3-D65", "Camera Rec.709"
BEST = {"quality": 95, "subsampling": 0}
H264 = {"codec": "libx264", "options": {"qp": "0"}}

KINDS = [
    Kind("JPEG that names nothing", "bare.jpg", still(**BEST), SRGB_VIEW),
    Kind("JPEG, EXIF: sRGB", "exif.jpg", still(**BEST, exif=exif(colour_space=1)), SRGB_VIEW),
    Kind(
        "JPEG, EXIF: Adobe RGB (DCF R03)", "dcf.jpg",
        still(**BEST, exif=exif(colour_space=65535, adobe=1)), "Gamma 2.2 Encoded AdobeRGB",
    ),
    Kind("JPEG, sRGB profile", "srgb.jpg", still(**BEST, icc_profile=SRGB_ICC), SRGB_VIEW),
    Kind("JPEG, Display P3 profile (phones)", "p3.jpg", still(**BEST, icc_profile=with_p3(SRGB_ICC)), P3_VIEW),
    Kind(
        "JPEG, Adobe RGB profile", "adobe.jpg", still(**BEST, icc_profile=profile(ADOBE, 563 / 256)),
        "Gamma 2.2 Encoded AdobeRGB",
    ),
    Kind("JPEG, grey", "grey.jpg", still(grey=True, quality=95), SRGB_VIEW),
    Kind("TIFF of 16 bits, ProPhoto profile", "prophoto.tif", deep_tiff(prophoto()), power(1.8)),
    Kind(
        "TIFF of 16 bits, profile of unusual primaries, γ 2.4", "own.tif",
        deep_tiff(profile(((0.60, 0.35), (0.25, 0.65), (0.16, 0.08)), 2.4)), power(2.4),
    ),
    Kind("TIFF, profile with a curve that is no standard's", "curve.tif", converted, SRGB_VIEW),
    Kind("PNG of 16 bits", "deep.png", deep_png, SRGB_VIEW),
    Kind("PNG, sRGB chunk", "chunk.png", chunks((b"sRGB", b"\0")), SRGB_VIEW),
    Kind("PNG, gAMA of 1/1.8", "gama.png", chunks((b"gAMA", struct.pack(">I", 55556))), power(1.8)),
    Kind("PNG, cICP: Display P3", "cicp.png", chunks((b"cICP", bytes([12, 13, 0, 1]))), P3_VIEW),
    Kind("PNG with alpha", "alpha.png", still(channels=4), SRGB_VIEW),
    Kind("WebP", "plain.webp", still(lossless=True), SRGB_VIEW),
    Kind("AVIF", "plain.avif", still(quality=95, subsampling="4:4:4"), SRGB_VIEW),
    Kind("HEIC that names nothing", "bare.heic", heic(), SRGB_VIEW),
    Kind("HEIC, Display P3 profile (phones)", "p3.heic", heic(icc_profile=with_p3(SRGB_ICC)), P3_VIEW),
    Kind(
        "PNG, cICP: BT.2100 PQ, with `--from-hdr`", "pq.png", chunks((b"cICP", bytes([9, 16, 0, 1]))), pq(),
        {"from_hdr": True},
    ),
    Kind(
        "MP4, H.264, BT.709", "hd.mp4",
        yuv(0.2126, 0.0722, tags=tags(1, 1, 1), **H264), CAMERA_VIEW,
    ),
    Kind("MKV that names nothing", "bare.mkv", yuv(0.299, 0.114), CAMERA_VIEW),
    Kind("MKV of 10 bits, BT.601 (NTSC)", "sd.mkv", yuv(0.299, 0.114, 10, tags=tags(6, 6, 6)), camera()),
    Kind(
        "MKV of 8 bits in full range, BT.601 (PAL)", "full.mkv",
        yuv(0.299, 0.114, full=True, tags=tags(5, 6, 5, True)), camera(),
    ),
    Kind(
        "MP4, H.264 of 10 bits, BT.2020 SDR", "uhd.mp4",
        yuv(0.2627, 0.0593, 10, tags=tags(9, 14, 9), **H264), camera(),
    ),
    Kind("MKV, Display P3 with sRGB's curve", "phone.mkv", yuv(0.2126, 0.0722, tags=tags(12, 13, 1)), P3_VIEW),
    Kind("MKV, γ 2.2", "g22.mkv", yuv(0.2126, 0.0722, tags=tags(1, 4, 1)), "Gamma 2.2 Encoded Rec.709"),
    Kind("MKV of RGB (screen recordings)", "screen.mkv", rgb_clip(), CAMERA_VIEW),
    Kind(
        "MP4 with `--transfer bt1886`", "graded.mp4",
        yuv(0.2126, 0.0722, tags=tags(1, 1, 1), **H264), "Gamma 2.4 Encoded Rec.709", {"transfer": "bt1886"},
    ),
    Kind("JPEG with `--transfer gamma`", "paper.jpg", still(**BEST), power(2.0), {"transfer": "gamma"}),
    Kind("JPEG with `--colorspace acescg`", "acescg.jpg", still(**BEST), SRGB_VIEW, {"colorspace": "acescg"}),
    Kind(
        "JPEG with `--colorspace aces2065-1`", "aces.jpg",
        still(**BEST, icc_profile=with_p3(SRGB_ICC)), P3_VIEW, {"colorspace": "aces2065-1"},
    ),
]  # fmt: skip


def convert(kind: Kind, folder: Path) -> tuple[np.ndarray, Path, str]:
    """The file's codes, the result, and the row of the table."""
    source, out = folder / kind.name, folder / "out"
    codes = kind.make(source)
    options = ldr2hdr.ConvertOptions(method="clip", **kind.options)  # what it adds is above all these codes
    events = list(ldr2hdr.convert(source, out, options))
    (done,) = (event for event in events if isinstance(event, ldr2hdr.Done))
    notes = [event.message.split(": ", 1)[1] for event in events if isinstance(event, ldr2hdr.Note)]
    info = probe(source)
    read = f"{info.codec}, {info.bit_depth} bits, {info.primaries}, {info.transfer}" + ", alpha" * info.has_alpha
    row = f"| {kind.title} | {read} | {' '.join(notes) or '–'} | {written(done.output)} |"
    return codes, done.output, row


def written(path: Path) -> str:
    """As OpenImageIO reads it."""
    spec = oiio.ImageInput.open(str(path)).spec()
    xy = " ".join(f"{value:.4g}" for value in spec.getattribute("chromaticities"))
    name = spec.get_string_attribute("colorInteropID")
    said = [f"`{name}`" if name else f"primaries and white {xy}, no `colorInteropID`"]
    said += [f"linearised by {spec.get_string_attribute('ldr2hdr/transfer')}"]
    said += ["ACES container"] * bool(spec.get_int_attribute("acesImageContainerFlag"))
    said += [f"alpha {spec.get_string_attribute('ldr2hdr/alpha')}"] * ("A" in spec.channelnames)
    return ", ".join(said)


def seen(path: Path, view: str | Transform) -> np.ndarray:
    """The codes that a viewer shows: OpenImageIO reads, OpenColorIO goes from the label to the view."""
    picture = oiio.ImageBuf(str(path))
    if picture.spec().alpha_channel >= 0:
        picture = oiio.ImageBufAlgo.unpremult(picture)
    config = ocio.Config.CreateFromFile("ocio://studio-config-latest")
    if isinstance(view, str):
        name = picture.spec().get_string_attribute("colorInteropID")
        (labelled,) = (space.getName() for space in config.getColorSpaces() if space.getInteropID() == name)
        processor = config.getProcessor(labelled, view)
    else:
        processor = config.getProcessor(view)
    pixels = np.ascontiguousarray(picture.get_pixels(oiio.FLOAT)[..., :3])
    processor.getDefaultCPUProcessor().applyRGB(pixels)
    return pixels


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_what_was_not_clipped_comes_back_within_half_a_code_and_the_table_says_so(tmp_path, kind):
    if kind.name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    codes, result, row = convert(kind, tmp_path)
    assert np.abs(seen(result, kind.view) - codes).max() * 255 < 0.5
    assert row in DOCS.read_text("utf-8"), "python -m tests.ldr2hdr_cli.media.test_colour_kinds writes the table anew"


def write_table() -> None:
    text = DOCS.read_text("utf-8")
    start = text.index(HEAD) + len(HEAD)
    end = text.find("\n\n", start)
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(convert(kind, Path(folder))[2])
    DOCS.write_text(text[:start] + "\n".join(rows) + (text[end:] if end > 0 else "\n"), "utf-8")


if __name__ == "__main__":
    write_table()
