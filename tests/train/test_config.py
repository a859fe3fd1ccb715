"""Settings: what is refused, and by which sentence."""

import pytest

from model.errors import Ldr2hdrError
from train.config import make_settings


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("max_hours", 0, "greater than 0"),
        ("max_hours", -1.0, "greater than 0"),
        ("checkpoint_minutes", 0, "greater than 0"),
        ("seed", 99999999999, "0 to 4294967295"),
        ("seed", -1, "0 to 4294967295"),
        ("max_hours", 10**400, "a number"),
        ("max_steps", -(10**5000), "at least 1"),
    ],
    ids=range(7),  # pytest cannot write out a number of 5000 digits either
)
def test_a_number_out_of_its_bounds_is_refused(name, value, bound):
    with pytest.raises(Ldr2hdrError, match=rf"\Arun\.{name} is .*, but must be {bound}"):
        make_settings({"run": {name: value}})


def test_the_bounds_themselves_are_allowed():
    assert make_settings({"run": {"max_hours": 1e-3, "seed": 2**32 - 1}}).run.seed == 2**32 - 1


def test_a_value_of_any_length_is_quoted_briefly():
    with pytest.raises(Ldr2hdrError, match=r"run\.seed is \[0, 1, .*\.\.\., but must be a whole number") as refused:
        make_settings({"run": {"seed": list(range(9000))}})
    assert len(str(refused.value)) < 200
    with pytest.raises(Ldr2hdrError, match=r"run\.seed is something that cannot be shown, but must be 0 to"):
        make_settings({"run": {"seed": 16**9000}})
