"""One run, several formats: they hold the same light, and are made again when one of them is missing."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from ldr2hdr import convert
from ldr2hdr_cli.convert.events import Done, Skipped
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import DisplayLight, pq, to_rec2020
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.options import ConvertOptions
from model.errors import Ldr2hdrError
from model.exposure import encode


@pytest.fixture
def photo(tmp_path):
    """A JPEG with a light that is clipped, in front of a ramp."""
    codes = np.tile(np.linspace(10, 250, 128)[None, :, None], (96, 1, 3))
    codes[20:60, 30:80] = 255
    Image.fromarray(codes.astype(np.uint8)).save(tmp_path / "photo.jpg", quality=95, subsampling=0)
    return tmp_path / "photo.jpg"


def options(**given):
    return ConvertOptions(**{"method": "rempel2007", "transfer": "srgb", "exposure": 1.0, "float_": True, **given})


def events(photo, out, kind, **given):
    return [event for event in convert(photo, out, options(**given)) if isinstance(event, kind)]


def test_every_format_of_one_run_shows_the_light_of_its_exr(photo, tmp_path):
    out = tmp_path / "out"
    (done,) = events(photo, out, Done, format="exr,ultrahdr,avif,hdr", quality=100, peak=600.0)
    assert done.output == out / "photo.exr"
    names = {"photo.exr", "photo.hdr", "photo.ultrahdr.jpg", "photo.hdr.avif"}
    assert {path.name for path in out.glob("photo.*")} == names
    linear = read_exr(out / "photo.exr")[0]
    light = DisplayLight(peak=600)
    assert linear.max() > 1.5
    codes = imagecodecs.avif_decode((out / "photo.hdr.avif").read_bytes())
    assert np.abs(codes - pq(light.nits(linear, to_rec2020(REC709))) * 1023).max() < 0.51
    seen = imagecodecs.ultrahdr_decode((out / "photo.ultrahdr.jpg").read_bytes(), dtype="float16", boost=64.0)
    difference = encode(seen[..., :3].astype(np.float32), "srgb") - encode(light.nits(linear) / 203, "srgb")
    assert np.abs(difference).max() < 0.03


def test_finished_formats_are_not_made_again_but_a_missing_one_is(photo, tmp_path):
    out, format = tmp_path / "out", "exr,ultrahdr"
    assert len(events(photo, out, Done, format=format)) == 1
    before = (out / "photo.ultrahdr.jpg").read_bytes()
    assert len(events(photo, out, Skipped, format=format)) == 1
    (out / "photo.ultrahdr.jpg").unlink()
    assert len(events(photo, out, Done, format=format)) == 1
    assert (out / "photo.ultrahdr.jpg").read_bytes() == before
    (out / "photo.ultrahdr.jpg").write_bytes(before[:-1] + b"?")
    assert len(events(photo, out, Done, format=format, verify=True)) == 1
    assert (out / "photo.ultrahdr.jpg").read_bytes() == before


def test_peak_decides_what_is_shown_and_no_exr(photo, tmp_path):
    for format, again in (("exr", Skipped), ("exr,avif", Done)):
        events(photo, tmp_path / format, Done, format=format)
        assert len(events(photo, tmp_path / format, again, format=format, peak=2000.0)) == 1


def test_results_beside_their_sources_are_no_inputs_and_no_source_is_touched(photo):
    before = photo.read_bytes()
    for kind in (Done, Skipped):
        assert len(events(photo.parent, photo.parent, kind, format="ultrahdr,avif,exr", preview=True)) == 1
    assert photo.read_bytes() == before
    assert (photo.parent / "photo.preview.png").exists()


def test_misuse_is_one_sentence_before_any_work(photo, tmp_path):
    with pytest.raises(Ldr2hdrError, match=r"format 'foo': choose from exr, hdr, ultrahdr, avif"):
        options(format="exr,foo")
    with pytest.raises(Ldr2hdrError, match="choose a peak above white"):
        next(iter(convert(photo, tmp_path / "out", options(format="avif", peak=100.0))))
    assert not (tmp_path / "out").exists()
