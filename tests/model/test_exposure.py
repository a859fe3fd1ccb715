"""β of figure 2, the transfer functions and eq. 1: golden values, numpy and torch alike."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.exposure import Transfer, compose_hdr, encode, exposure_mask, linearise

TRANSFERS = get_args(Transfer)
UNIT = st.floats(0, 1, width=32)
KINDS = [np.asarray, torch.as_tensor]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "threshold", "want"),
    [(0, 0.96, 1), (0.96, 0.96, 1), (0.97, 0.96, 0.75), (0.98, 0.96, 0.5), (1, 0.96, 0), (0.975, 0.95, 0.5),
     (0.95, 0.95, 1), (0.25, 0, 0.75)],
)  # fmt: skip
def test_mask_by_hand(kind, value, threshold, want):
    mask = exposure_mask(kind(np.full((2, 3), value, np.float32)), threshold)
    assert tuple(mask.shape) == (2, 3) and str(mask.dtype).endswith("float32")
    np.testing.assert_allclose(np.asarray(mask), want, atol=2e-6)


@given(st.lists(UNIT, min_size=1, max_size=20), st.floats(0, 0.99))
def test_mask_properties(values, threshold):
    ldr = np.sort(np.asarray(values, np.float32))
    mask = exposure_mask(ldr, threshold)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (np.diff(mask) <= 0).all()
    assert (mask[ldr <= threshold - 1e-6] == 1).all()
    assert (mask[ldr == 1] == 0).all()
    np.testing.assert_allclose(exposure_mask(torch.from_numpy(ldr), threshold).numpy(), mask, rtol=1e-5, atol=1e-7)


def test_each_channel_is_judged_alone():
    np.testing.assert_allclose(exposure_mask(np.array([[1.0, 0.5, 0.98]])), [[0, 1, 0.5]], atol=1e-9)


@pytest.mark.parametrize("threshold", [1.0, -0.1, 2, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        exposure_mask(np.zeros(1), threshold)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("transfer", "encoded", "linear"),
    [("gamma", 0.5, 0.25), ("srgb", 0.5, 0.21404114), ("srgb", 0.04, 0.04 / 12.92), ("srgb", 1, 1),
     ("bt709", 0.5, 0.25958940), ("bt709", 0.05, 0.05 / 4.5), ("bt709", 1, 1), ("bt1886", 0.5, 0.18946457),
     ("linear", 0.3, 0.3), ("prophoto", 0.5, 0.28717459), ("prophoto", 0.02, 0.00125), ("smpte240m", 0.5, 0.26503573),
     ("smpte240m", 0.04, 0.01)],
)  # fmt: skip
def test_transfers_golden(kind, transfer, encoded, linear):
    assert float(linearise(kind(np.array([encoded], np.float64)), transfer)[0]) == pytest.approx(linear, rel=1e-6)
    assert float(encode(kind(np.array([linear], np.float64)), transfer)[0]) == pytest.approx(encoded, rel=1e-6)


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_every_8_bit_value_survives_the_round_trip(transfer):
    steps = np.arange(256) / 255
    linear = linearise(steps, transfer, 2.2)
    peak = {"pq": 10_000 / 203, "hlg": 1 / 0.26496256}.get(transfer, 1)  # over BT.2408's white: cd/m², scene light
    assert linear[0] == 0 and linear[-1] == pytest.approx(peak) and (np.diff(linear) > 0).all()
    np.testing.assert_allclose(encode(linear, transfer, 2.2), steps, atol=1e-6)
    np.testing.assert_allclose(linearise(torch.from_numpy(steps), transfer, 2.2).numpy(), linear, atol=1e-12)


@given(st.sampled_from(TRANSFERS), st.floats(0, 100))
def test_encode_goes_on_above_white(transfer, linear):
    there = encode(np.array([linear]), transfer)
    np.testing.assert_allclose(linearise(there, transfer), [linear], rtol=1e-5, atol=1e-6)


def test_unknown_transfers_are_refused():
    for function in (linearise, encode):
        with pytest.raises(ValueError, match="log3g10"):
            function(np.zeros(1), "log3g10")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("transfer", "codes", "light"),
    [
        # SMPTE ST 2084, annex A: cd/m² by 10-bit code value in full range; 203 of them are 1.0.
        ("pq", np.array([0, 520, 594, 769, 1023]) / 1023, np.array([0, 100.23, 202.33, 1000.1, 10_000]) / 203),
        # BT.2100-3, table 5, note 5i: a half is a twelfth of the peak; 75 % is 26.5 % of it (BT.2408-7, table 1).
        ("hlg", np.array([0, 0.25, 0.5, 0.75, 1]), np.array([0, 1 / 48, 1 / 12, 0.2649626, 1]) / 0.2649626),
    ],
)
def test_hdr_signals_become_light_whose_diffuse_white_is_one(kind, transfer, codes, light):
    found = np.asarray(linearise(kind(codes.astype(np.float32)), transfer))
    np.testing.assert_allclose(found, light, rtol=6e-3, atol=1e-6)
    np.testing.assert_allclose(np.asarray(encode(kind(light.astype(np.float32)), transfer)), codes, atol=2e-3)


def parts(kind, *values):
    return [kind(np.array([value], np.float64)) for value in values]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ldr", "mask", "log_hdr", "settings", "want"),
    [
        (0.5, 1, 9.0, {}, 0.25),
        (1.0, 0, np.log(8.0), {}, 7.0),
        (0.9, 0.25, np.log(5.0), {}, 0.25 * 0.81 + 0.75 * 4),
        (0.9, 0.25, np.log(5.0), {"gamma": 3.0}, 0.25 * 0.729 + 0.75 * 4),
        (0.5, 0.5, np.log(3.0), {"transfer": "srgb"}, 0.5 * 0.21404114 + 0.5 * 2),
        (0.5, 0.5, np.log(3.0), {"transfer": "bt709"}, 0.5 * 0.25958940 + 0.5 * 2),
        (0.9, 0.5, np.log(1.2), {}, 0.5 * 0.81 + 0.5 * 0.2),
        (0.9, 0.5, np.log(1.2), {"floor": True}, 0.81),
        (0.9, 0.0, np.log(5.0), {"floor": True}, 4.0),
    ],
)
def test_equation_1_by_hand(kind, ldr, mask, log_hdr, settings, want):
    result = compose_hdr(*parts(kind, ldr, mask, log_hdr), **settings)
    assert float(result[0]) == pytest.approx(want, rel=1e-7)


@given(UNIT, UNIT, st.floats(0, 10), st.booleans())
def test_equation_1_is_between_its_two_terms(ldr, mask, log_hdr, floor):
    value = float(compose_hdr(*parts(np.asarray, ldr, mask, log_hdr), floor=floor)[0])
    low, high = sorted((ldr**2, max(np.expm1(log_hdr), ldr**2 if floor else 0)))
    assert low * (1 - 1e-9) - 1e-12 <= value <= high * (1 + 1e-9) + 1e-12
    if floor:
        assert value >= ldr**2 * (1 - 1e-9)
