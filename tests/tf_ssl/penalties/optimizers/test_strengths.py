"""Strengths by patterns."""

import numpy as np
import pytest

from tf_ssl.penalties.optimizers import strengths

NAMES = ["conv1/filters", "conv2/filters", "dense/units"]


def test_a_number_is_for_all():
    np.testing.assert_array_equal(strengths.of_structures(2, NAMES), [2, 2, 2])


def test_the_first_pattern_that_matches_counts():
    given = {"conv2/*": 3.0, "conv*": 0.5}
    values = strengths.of_structures(given, NAMES)
    np.testing.assert_array_equal(values, [0.5, 3.0, 0.0])
    configs = [{"name": name, "kind": "units"} for name in NAMES]
    parts = [strengths.takes_part(given, config) for config in configs]
    assert parts == [True, True, False]


def test_inputs_take_part_only_by_name():
    pixels = {"name": "images/input", "kind": "input"}
    assert not strengths.takes_part(1.0, pixels)
    assert strengths.takes_part({"images/*": 1.0}, pixels)
    assert strengths.takes_part(0.0, {"name": "a/units", "kind": "units"})


def test_a_pattern_that_matches_nothing():
    with pytest.raises(ValueError) as error:
        strengths.of_structures({"conv*": 1.0, "fc*": 1.0}, NAMES)
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
