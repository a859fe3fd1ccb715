"""The preview strip: what each panel shows."""

import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.media.colour import P3D65, REC709, REC2020, conversion
from ldr2hdr_cli.media.preview import LABEL_HEIGHT, filmic, preview_strip, shown, write_preview
from model.errors import Ldr2hdrError
from model.exposure import Encoding, linearise

INVERSE = {
    "gamma": lambda x: np.sqrt(x),
    "srgb": lambda x: np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055),
    "bt709": lambda x: np.where(x < 0.018, 4.5 * x, 1.099 * x**0.45 - 0.099),
}


def panels(strip):
    """Source, −4, −2, 0 stops, without their labels."""
    return np.split(strip[LABEL_HEIGHT:].astype(int), 4, axis=1)


def light(height=40, width=64, top=30.0):
    ramp = np.geomspace(1e-3, top, width, dtype=np.float32)
    return np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)))


@pytest.mark.parametrize("transfer", INVERSE)
def test_plain_panels_are_the_exposures_of_the_result(transfer):
    hdr = light()
    source = INVERSE[transfer](np.minimum(hdr, 1)).astype(np.float32)
    found = panels(preview_strip(source, hdr, curve="plain", encoding=Encoding(transfer), width=64))
    np.testing.assert_allclose(found[0], np.rint(source * 255), atol=1)
    for panel, stops in zip(found[1:], (-4, -2, 0), strict=True):
        expected = INVERSE[transfer](np.minimum(hdr * 2.0**stops, 1)) * 255
        np.testing.assert_allclose(panel, expected, atol=1)
    # The view back through the transfer is the source itself, clipped areas included.
    np.testing.assert_allclose(found[3], found[0], atol=1)


def test_plain_follows_gamma():
    hdr = light(top=0.9)
    found = panels(
        preview_strip(hdr ** np.float32(1 / 2.4), hdr, curve="plain", encoding=Encoding(gamma=2.4), width=64)
    )
    np.testing.assert_allclose(found[3], found[0], atol=1)


@pytest.mark.parametrize("transfer", INVERSE)
@pytest.mark.parametrize("width", [64, 30])  # and made smaller
def test_at_0_stops_the_result_is_the_source_where_nothing_is_clipped(transfer, width):
    source = np.random.default_rng(0).integers(0, 245, (40, 64, 3)).astype(np.float32) / 255
    source[:, 60:] = 1
    hdr = linearise(source, transfer)
    hdr[:, 60:] = 9
    found = panels(preview_strip(source, hdr, encoding=Encoding(transfer), width=width))
    exposed = found[0][:, : width * 58 // 64]
    np.testing.assert_array_equal(found[3][:, : width * 58 // 64], exposed)
    assert exposed.std() > 20
    # At −2 stops what was exposed is a quarter of the light, and the lamp is still brighter than white would be.
    expected = linearise(exposed / np.float32(255), transfer) / 4
    np.testing.assert_allclose(linearise(found[2][:, : width * 58 // 64] / 255, transfer), expected, atol=0.004)
    assert (found[2][:, -1] > 255 * INVERSE[transfer](np.array(0.3))).all()


def test_soft_tells_highlights_apart_keeps_their_hue_and_fades_to_white():
    lamps = np.array([[[2, 1, 0.5], [8, 4, 2], [64, 32, 16], [1000, 500, 250]]], np.float32)
    for stops in (0, -2, -4):
        light = shown(lamps, stops, Encoding("gamma", 1.0))
        red, green, blue = light[0].T
        np.testing.assert_allclose((red - green) / (red - blue), np.full(4, 0.5 / 0.75), rtol=1e-3)  # the hue
        assert light.max() <= 1 and (np.diff(blue / red) > 0).all() and blue[-1] / red[-1] > 0.95
        if stops:
            assert (np.diff(light[0, :, 0]) > 0.01).all()  # clipped, the last three would be one
    ramp = np.linspace(0, 3, 3000, dtype=np.float32)[None, :, None].repeat(3, 2)
    seen = shown(ramp, -2, Encoding("gamma", 1.0))[0, :, 0]
    assert (np.diff(seen) > 0).all() and np.diff(seen).max() < 0.26 * 3 / 2999  # no step at the clip level


def test_exposure_moves_the_clip_level_with_it():
    hdr = light(top=0.9)
    found = panels(preview_strip(np.sqrt(hdr), 4 * hdr, white=4, width=64))
    np.testing.assert_allclose(found[2], found[0], atol=1)  # two stops more, two stops less


@pytest.mark.parametrize("primaries", [P3D65, REC2020])
def test_other_primaries_are_shown_as_they_look(primaries):
    """A colour of Rec.709 that is stored in a wider space looks in the strip as it does in Rec.709."""
    colour = np.array([0.6, 0.3, 0.1])
    stored = np.linalg.inv(np.array(conversion(primaries, REC709))) @ colour
    hdr = np.broadcast_to(stored.astype(np.float32), (8, 16, 3)).copy()
    matrix = conversion(primaries, REC709)
    source = INVERSE["srgb"](hdr).astype(np.float32)
    strip = preview_strip(source, hdr, encoding=Encoding("srgb"), source_matrix=matrix, matrix=matrix, width=16)
    for panel in (panels(strip)[0], panels(strip)[3]):
        np.testing.assert_allclose(panel[4, 4], 255 * INVERSE["srgb"](colour), atol=1)
    # Paper's gamma, which no screen has with other primaries, is shown as sRGB.
    plain = preview_strip(np.sqrt(hdr), hdr, source_matrix=matrix, matrix=matrix, width=16)
    np.testing.assert_array_equal(panels(plain)[0], panels(plain)[3])


def test_filmic_by_hand():
    # Narkowicz's fit at 0.6·x: x = 0.3 → 0.18·(2.51·0.18 + 0.03) / (0.18·(2.43·0.18 + 0.59) + 0.14).
    assert filmic(np.array([0.3])) == pytest.approx([0.0867240 / 0.3249320], rel=1e-6)
    assert filmic(np.array([0.0, 1e30])) == pytest.approx([0.0, 1.0])


def test_filmic_tells_highlights_apart_that_the_source_does_not():
    hdr = np.ones((8, 16, 3), np.float32)
    hdr[:, 8:] = 6.0
    source, *result = panels(preview_strip(np.ones_like(hdr), hdr, curve="filmic", width=16))
    assert (source == 255).all()
    for panel in result:
        assert (panel[:, 10:] > panel[:, :6].max() + 8).all()
    # Each panel is brighter than the one before it.
    assert result[0].mean() < result[1].mean() < result[2].mean()


def test_panels_are_labelled():
    strip = preview_strip(light(), light(), width=160)
    labels = np.split(strip[:LABEL_HEIGHT], 4, axis=1)
    assert all(label.std() > 5 for label in labels)
    assert len({label.tobytes() for label in labels}) == 4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (3, 7), (700, 300)])
def test_any_size_fits_the_strip(height, width):
    hdr = np.full((height, width, 3), 2.0, np.float32)
    strip = preview_strip(np.ones_like(hdr), hdr, width=100)
    assert strip.dtype == np.uint8
    assert strip.shape[1] == 400
    assert LABEL_HEIGHT < strip.shape[0] <= LABEL_HEIGHT + 400
    assert panels(strip)[0].max() == 255


def test_values_that_are_no_light_stay_black_or_white():
    hdr = np.zeros((4, 4, 3), np.float32)
    hdr[:2], hdr[2, :2], hdr[2, 2:] = np.nan, np.inf, -3
    found = panels(preview_strip(np.zeros_like(hdr), hdr, width=4))[3]
    assert (found[:2] == 0).all()
    assert (found[2, :2] == 255).all()
    assert (found[2, 2:] == 0).all()


def test_png_holds_the_strip_and_says_srgb(tmp_path):
    strip = preview_strip(light(), light(), width=64)
    write_preview(tmp_path / "a.png", strip)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), strip)
        assert image.info["srgb"] == 0
    with pytest.raises(Ldr2hdrError, match="cannot be written"):
        write_preview(tmp_path / "missing" / "a.png", strip)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="same"):
        preview_strip(light(4, 4), light(4, 5))


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_a_signal_of_hdr_is_shown_as_an_srgb_screen_shows_its_light(transfer):
    source = np.broadcast_to(np.linspace(0.05, 0.9, 64, dtype=np.float32)[None, :, None], (40, 64, 3)).copy()
    hdr = linearise(source, transfer)
    found = panels(preview_strip(source, hdr, encoding=Encoding(transfer), width=64))
    np.testing.assert_allclose(found[0], np.rint(INVERSE["srgb"](np.minimum(hdr, 1)) * 255), atol=1)
