import numpy as np
import pytest

from tf_ssl.graph.difference import relative_difference


def test_is_relative_to_the_largest_of_the_first():
    first = np.array([[1.0, -8.0], [2.0, 0.0]])
    second = np.array([[1.5, -8.0], [2.0, 0.25]])
    assert relative_difference(first, second) == 0.5 / 8
    assert relative_difference(second, first) == 0.5 / 8
    assert relative_difference(first, first) == 0


def test_is_computed_in_float64():
    first = np.array([1e4, 1.0], np.float16)
    second = np.array([1e4, 1.001], np.float16)
    expected = (float(second[1]) - 1) / 1e4
    assert relative_difference(first, second) == pytest.approx(expected)


def test_zeros():
    assert relative_difference(np.zeros(3), np.zeros(3)) == 0
    assert relative_difference(np.zeros(3), np.full(3, 0.5)) == 0.5
    assert relative_difference(np.zeros((0, 2)), np.zeros((0, 2))) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_seen(value):
    assert np.isnan(relative_difference([value, 1.0], [value, 1.0]))
    assert not relative_difference([1.0, 1.0], [value, 1.0]) < 1e9


def test_shapes():
    with pytest.raises(ValueError) as error:
        relative_difference(np.zeros((2, 3)), np.zeros((2, 1)))
    assert str(error.value) == (
        "Expected two outputs of the same shape. Received: shapes (2, 3) and "
        "(2, 1)"
    )


def test_masked_scores_are_no_scale():
    scores = np.array([2.0, -4.0, -1e30, 1e30])
    other = np.array([2.0, -3.0, -1e30, 1e30])
    assert relative_difference(scores, other) == 1 / 4
    assert relative_difference(scores, scores) == 0
    # A mask that one of them lacks is a difference.
    assert relative_difference(scores, [2.0, -4.0, 0.0, 1e30]) > 0.1
