"""AVIF in the eyes of FFmpeg (dav1d), libheif and libavif."""

import av
import imagecodecs
import numpy as np
import pillow_heif
import pytest

from ldr2hdr_cli.media.avif import write_avif
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import DisplayLight, pq, to_rec2020


@pytest.fixture(scope="module")
def picture():
    """H×W×3, linear: a ramp from black to far above the peak, with colours."""
    ramp = np.geomspace(1e-3, 60, 64 * 40, dtype=np.float32).reshape(40, 64, 1)
    return ramp * np.float32([1, 0.6, 0.3]) + np.float32([0, 0, 0.01])


@pytest.mark.parametrize(("bits", "pixels"), [(10, "gbrp10le"), (12, "gbrp12le")])
def test_every_code_is_that_of_the_curve(picture, tmp_path, bits, pixels):
    out, matrix = tmp_path / "out.avif", to_rec2020(REC709)
    write_avif(out, picture, matrix=matrix, bits=bits, quality=100)
    exact = pq(DisplayLight().nits(picture, matrix)) * (2**bits - 1)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        # ITU-T H.273: BT.2020, PQ, RGB; FFmpeg's 2: full range.
        tags = frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range
        assert (tags, frame.format.name) == ((9, 16, 0, 2), pixels)
        codes = frame.to_ndarray(format=f"gbrp{bits}le")
    assert np.abs(codes - exact).max() < 0.51
    assert codes.max() == pytest.approx(float(pq(np.array(1000.0))) * (2**bits - 1), abs=1)


def test_default_quality_is_close_and_said_to_be_hdr(picture, tmp_path):
    out = tmp_path / "out.avif"
    write_avif(out, picture)
    exact = pq(DisplayLight().nits(picture)) * 1023
    codes = imagecodecs.avif_decode(out.read_bytes())
    assert np.abs(codes - exact).mean() < 3
    data = out.read_bytes()
    at = data.index(b"nclx") + 4
    assert data[at : at + 7] == bytes([0, 9, 0, 16, 0, 9, 0x80])  # primaries, transfer, matrix, full range


def test_libheif_reads_the_tags(picture, tmp_path):
    out = tmp_path / "out.avif"
    write_avif(out, picture, bits=12)
    info = pillow_heif.open_heif(out, convert_hdr_to_8bit=False).info
    assert info["bit_depth"] == 12
    profile = info["nclx_profile"]
    assert (profile["color_primaries"], profile["transfer_characteristics"], profile["matrix_coefficients"]) == (
        9,
        16,
        9,
    )
