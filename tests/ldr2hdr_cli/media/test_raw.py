"""DNGs that the tests write, developed by LibRaw."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ldr2hdr_cli.media.colour import REC2020
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.sources import find_inputs, probe, read_still
from model.errors import Ldr2hdrError
from model.exposure import linearise
from tests import cli

rawpy = pytest.importorskip("rawpy")

NEUTRAL = (0.5, 1.0, 0.8)  # what the camera's channels say of grey
WHITE = 4095
XYZ_TO_SRGB = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)


def dng(path: Path, scene: np.ndarray, *, mosaic: bool = True, orientation: int = 1, thumbnail: bool = False) -> Path:
    """A camera whose channels are those of sRGB but for its white balance; scene: linear H×W×3, green clips at 1."""

    def ratios(values):
        return tuple(part for value in values for part in (round(value * 10_000), 10_000))

    codes = np.clip(np.rint(scene * NEUTRAL * WHITE), 0, WHITE).astype(np.uint16)
    if mosaic:
        red, green, blue = np.moveaxis(codes, 2, 0)
        codes = green.copy()
        codes[::2, ::2], codes[1::2, 1::2] = red[::2, ::2], blue[1::2, 1::2]
    count = 1 if mosaic else 3
    tags = [  # Adobe's DNG 1.7.1.0, chapter 4
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),
        (50708, "s", 0, "Test Camera", True),  # UniqueCameraModel
        (50721, "2i", 9, ratios(np.ravel(XYZ_TO_SRGB)), True),  # ColorMatrix1
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        (50728, "2I", 3, ratios(NEUTRAL), True),  # AsShotNeutral
        (50717, "I", count, (WHITE,) * count, True),  # WhiteLevel
        (271, "s", 0, "Test", True),
        (272, "s", 0, "Camera", True),
        (274, "H", 1, orientation, True),
    ]
    if mosaic:
        tags += [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]  # RGGB
    with tifffile.TiffWriter(path) as tiff:
        if thumbnail:
            small = np.full((16, 24, 3), 200, np.uint8)
            tiff.write(
                small, photometric="rgb", subfiletype=1, subifds=1, extratags=tags[:6] + tags[7:10], metadata=None
            )
            tags = [tag for tag in tags if tag[0] in (50717, 33421, 33422)]
        tiff.write(
            codes, photometric=32803 if mosaic else 34892, planarconfig=1, extratags=tags, metadata=None, subfiletype=0
        )
    return path


def ramp(peak: float = 0.9, height: int = 64, width: int = 96) -> np.ndarray:
    return np.tile(np.linspace(0, peak, width)[None, :, None], (height, 1, 3))


@pytest.mark.parametrize("mosaic", [True, False], ids=["mosaic", "linear"])
def test_a_dng_is_developed_linearly_with_the_cameras_white_balance(tmp_path, mosaic):
    path = dng(tmp_path / "a.dng", ramp(), mosaic=mosaic)
    info, frame = read_still(path)
    assert (info.width, info.height, info.bit_depth, info.codec) == (96, 64, 12, "raw")
    assert info.chromaticities == REC2020 and "white balance" in info.notes[0] and probe(path) == info
    light = linearise(frame.pixels, "srgb")
    assert np.abs(light - ramp())[4:-4, 4:-4].max() < 4e-3 and frame.gain.max() == 1


def test_colours_are_in_the_primaries_that_it_says(tmp_path):
    scene = np.full((64, 96, 3), (0.6, 0.2, 0.1))
    light = linearise(read_still(dng(tmp_path / "a.dng", scene))[1].pixels, "srgb")
    # ITU-R BT.2087-0, annex 1: linear BT.709 to BT.2020.
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    assert np.abs(light[32, 48] - to_2020 @ scene[0, 0]).max() < 5e-3


def test_what_one_channel_clips_the_others_still_tell(tmp_path):
    """Green clips at 1, blue at 1.25, red at 2: between, the light goes on rising above white, and stays neutral."""
    frame = read_still(dng(tmp_path / "a.dng", ramp(1.8), mosaic=False))[1]
    light = (linearise(frame.pixels, "srgb") * frame.gain)[32]
    clipped = ramp(1.8)[32, :, 0] > 1.02
    assert frame.pixels[32][clipped].min() > 0.999
    assert light[-1].min() > 1.1 and (np.diff(light[clipped, 1]) > -1e-3).all() and np.ptp(light[-1]) < 0.05


@pytest.mark.parametrize(("orientation", "size"), [(1, (96, 64)), (3, (96, 64)), (6, (64, 96)), (8, (64, 96))])
def test_a_turned_raw_is_upright(tmp_path, orientation, size):
    info, frame = read_still(dng(tmp_path / "a.dng", ramp(), orientation=orientation))
    assert (info.width, info.height) == size and frame.pixels.shape[:2] == size[::-1]
    edges = {1: frame.pixels[:, -1], 3: frame.pixels[:, 0], 6: frame.pixels[-1], 8: frame.pixels[0]}
    assert edges[orientation].min() > 0.8


@pytest.mark.parametrize("name", ["a.dng", "a.tif"])
def test_a_thumbnail_is_never_taken_for_the_picture(tmp_path, name):
    dng(tmp_path / name, ramp(), thumbnail=True)
    (one,) = find_inputs([str(tmp_path)])
    info, frame = read_still(one.path)
    assert info.codec == "raw" and frame.pixels.shape == (64, 96, 3)


def test_a_raw_without_rawpy_and_one_that_libraw_cannot_read_are_named(tmp_path, monkeypatch):
    path = dng(tmp_path / "a.dng", ramp())
    for name in ("bad.nef", "bad.cr3"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "tiff")
        with pytest.raises(Ldr2hdrError, match=rf"{name} cannot be developed"):
            read_still(tmp_path / name)
    with pytest.raises(Ldr2hdrError, match="--max-pixels"):
        read_still(path, max_pixels=1000)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(Ldr2hdrError, match=r"a\.dng is a camera's RAW: develop it first.*ldr2hdr\[raw\]"):
        read_still(path)


def test_a_dng_goes_through_convert_and_is_linear_in_the_exr(tmp_path):
    dng(tmp_path / "a.dng", ramp())
    done = cli.run("convert", tmp_path / "a.dng", "-o", tmp_path / "out", "--method", "clip", "--float")
    assert done.returncode == 0 and "white balance" in done.stderr, done.stderr
    pixels = read_exr(tmp_path / "out" / "a.exr")[0]
    assert np.abs(pixels - ramp())[4:-4, 4:-4].max() < 4e-3
