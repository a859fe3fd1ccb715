"""ICC profiles: every form of a curve, and what damage makes of one."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldr2hdr_cli.media.colour import COLORSPACES, REC2020, conversion
from ldr2hdr_cli.media.icc import Space, space_of
from model.exposure import Encoding, linearise
from tests.ldr2hdr_cli.media.test_stills import REC2020 as WIDE
from tests.ldr2hdr_cli.media.test_stills import profile, with_curve


def with_tag(curve: bytes) -> bytes:
    """BT.2020's primaries under this curve."""
    made = bytearray(profile(WIDE, 2.2))
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        at = made.index(name, 128)
        made[at + 4 : at + 12] = struct.pack(">II", len(made), len(curve))
    return bytes(made + curve)


def formula(kind: int, *parameters: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + b"".join(
        struct.pack(">i", round(value * 65536)) for value in parameters
    )  # fmt: skip


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (b"curv" + bytes(8), Encoding("gamma", 1.0)),
        (b"curv" + bytes(4) + struct.pack(">IH", 1, 563), Encoding("gamma", 2.19922)),
        (formula(0, 1.8), Encoding("gamma", 1.8)),
        (formula(1, 2.0, 1.0, 0.0), Encoding("gamma", 2.0)),
        (formula(2, 2.0, 1.0, 0.0, 0.0), Encoding("gamma", 2.0)),
        (formula(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), Encoding("srgb")),
        (formula(4, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081, 0.0, 0.0), Encoding("bt709")),
        (formula(3, 1.8, 1.0, 0.0, 1 / 16, 0.03125), Encoding("prophoto")),
    ],
)
def test_every_form_of_a_curve_is_known(curve, expected):
    found = space_of(with_tag(curve))
    assert found is not None and found.encoding.transfer == expected.transfer
    assert found.encoding.gamma == pytest.approx(expected.gamma, abs=2e-4)
    assert (found.primaries, found.chromaticities, found.is_converted) == ("bt2020", REC2020, False)


def test_a_table_of_a_known_curve_is_that_curve():
    found = space_of(with_curve(lambda codes: linearise(codes, "srgb"), WIDE))
    assert found == Space("bt2020", REC2020, Encoding("srgb"))


@given(st.data())
def test_a_damaged_profile_is_as_good_as_none(data):
    sound = profile(WIDE, 1.8)
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    found = space_of(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    if found is not None:
        for target in COLORSPACES.values():
            matrix = conversion(found.chromaticities, target)
            assert matrix is None or np.isfinite(matrix).all()
