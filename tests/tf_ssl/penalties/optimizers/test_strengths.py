"""Strengths by patterns."""

import numpy as np
import pytest

from tf_ssl.penalties.optimizers import strengths

NAMES = ["conv1/filters", "conv2/filters", "dense/units"]


STRUCTURES = [{"name": name, "kind": "units"} for name in NAMES]
PIXELS = {"name": "images/input", "kind": "input"}
NAN = np.nan


def test_the_first_pattern_that_matches_counts():
    given = {"conv2/*": 3.0, "conv*": 0.5}
    values = strengths.of_structures(given, STRUCTURES)
    np.testing.assert_array_equal(values, [0.5, 3.0, NAN])


@pytest.mark.parametrize(
    "strength, expected",
    [
        (2.0, [NAN, 2.0, 2.0, 2.0]),
        ({"*": 2.0}, [NAN, 2.0, 2.0, 2.0]),
        ({"*i*": 2.0}, [NAN, 2.0, 2.0, 2.0]),
        ({"*": 2.0, "images/input": 3.0}, [3.0, 2.0, 2.0, 2.0]),
        ({"*/input": 0.0, "*": 2.0}, [0.0, 2.0, 2.0, 2.0]),
        ({"images/*": 1.0}, [1.0, NAN, NAN, NAN]),
    ],
)
def test_inputs_take_part_only_by_name(strength, expected):
    values = strengths.of_structures(strength, [PIXELS, *STRUCTURES])
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("strength", [2.0, {"*": 2.0}])
def test_where_there_are_only_inputs_they_are_meant(strength):
    values = strengths.of_structures(strength, [PIXELS])
    np.testing.assert_array_equal(values, [2.0])


def test_a_pattern_that_matches_nothing():
    with pytest.raises(ValueError) as error:
        strengths.of_structures({"conv*": 1.0, "fc*": 1.0}, STRUCTURES)
    assert str(error.value) == (
        "Invalid value for argument strength. Expected patterns that match "
        "names of structures: conv1/filters, conv2/filters, dense/units. "
        "Received: 'fc*', which matches none"
    )


@pytest.mark.parametrize(
    "value", [-1.0, float("nan"), float("inf"), "1", None, True, [1.0]]
)
def test_what_is_no_strength(value):
    with pytest.raises(ValueError) as error:
        strengths.check(value)
    assert str(error.value) == (
        "Invalid value for argument strength. Expected a finite number >= 0 "
        f"or a dict of these by name patterns. Received: strength={value!r}"
    )
    with pytest.raises(ValueError) as error:
        strengths.check({"conv*": 1.0, "d*": value})
    assert str(error.value) == (
        "Invalid value for argument strength. Expected a dict from name "
        f"patterns to finite numbers >= 0. Received: {{'d*': {value!r}}}"
    )


def test_an_empty_dict():
    with pytest.raises(ValueError) as error:
        strengths.check({})
    assert str(error.value) == (
        "Invalid value for argument strength. Expected a number or a dict "
        "with one pattern or more. Received: strength={}"
    )
