"""Primaries and their names, and from one to another as OpenColorIO does it."""

import numpy as np
import OpenEXR
import pytest

from ldr2hdr_cli.media.colour import COLOR_INTEROP, COLORSPACES, PRIMARIES, color_interop_id, conversion
from ldr2hdr_cli.media.exr import read_exr, write_exr


@pytest.mark.parametrize("name", COLOR_INTEROP)
def test_names_agree_with_the_primaries(tmp_path, name):
    # An ICC profile rounds: the name must survive a change in the fourth decimal.
    rounded = tuple(value + 0.0004 for value in COLOR_INTEROP[name])
    assert color_interop_id(rounded) == name
    labels = {"chromaticities": COLOR_INTEROP[name], "colorInteropID": name}
    write_exr(tmp_path / "a.exr", np.ones((2, 2, 3), np.float32), attributes=labels)
    if not hasattr(OpenEXR, "checkColorMetadata"):
        pytest.skip("this OpenEXR does not check colour metadata")
    assert OpenEXR.checkColorMetadata(read_exr(tmp_path / "a.exr")[2]) == OpenEXR.ColorMetadataWarning.OK


def test_unknown_primaries_get_no_name():
    assert color_interop_id((0.7, 0.3, 0.2, 0.7, 0.1, 0.1, 0.3127, 0.329)) is None


def test_white_stays_white_between_any_two():
    known = [*COLORSPACES.values(), *(value for _, value in PRIMARIES.values())]
    for source in known:
        for target in known:
            matrix = conversion(source, target)
            assert (matrix is None) == (source == target)
            assert matrix is None or np.allclose(np.sum(matrix, 1), 1, atol=1e-9)


@pytest.mark.parametrize("target", COLOR_INTEROP)
@pytest.mark.parametrize("source", COLOR_INTEROP)
def test_conversions_are_opencolorio_s(source, target):
    ocio = pytest.importorskip("PyOpenColorIO")
    config = ocio.Config.CreateFromFile("ocio://default")
    spaces = {space.getInteropID(): space.getName() for space in config.getColorSpaces()}
    light = np.random.default_rng(0).random((50, 3), dtype=np.float32) * 4
    expected = light.copy()
    config.getProcessor(spaces[source], spaces[target]).getDefaultCPUProcessor().applyRGB(expected)
    matrix = conversion(COLOR_INTEROP[source], COLOR_INTEROP[target])
    found = light if matrix is None else light @ np.array(matrix).T
    assert np.abs(found - expected).max() < 2e-4
