"""Small weights become zeros."""

import keras
import numpy as np
import pytest

from tf_ssl.penalties.optimizers.segments import Groups
from tf_ssl.penalties.optimizers.thresholding import (
    ElementThreshold,
    zero_groups,
)
from tf_ssl.structures.structure import Slice, Structure


def _variables():
    """A layer of 3 units, its consumer, and a shift that belongs to none."""
    values = {
        "kernel": [[1e-5, 0.2, 2e-4], [-5e-5, -1e-5, -9e-5]],
        "bias": [5e-5, 5e-5, 0.3],
        "next": [[1e-5, 1.0], [9e-5, -2e-5], [-3e-4, 0.0]],
        "beta": [1e-5, 0.0, 1.0],
    }
    return [
        keras.Variable(np.array(v, np.float32), name=k)
        for k, v in values.items()
    ]


def _structure(variables):
    kernel, bias, consumer, beta = variables
    return Structure(
        "layer/units",
        3,
        (
            Slice(kernel, "out", np.array([[0, 1, 2]])),
            Slice(bias, "out", np.array([0, 1, 2])),
            Slice(consumer, "in", np.array([[0], [1], [2]])),
            Slice(beta, "norm", np.array([0, 1, 2])),
        ),
    )


def _values(variables):
    return [np.array(v).tolist() for v in variables]


def _f32(value):
    return np.float32(value).tolist()


def test_small_elements_go_and_a_bias_only_with_its_unit():
    variables = _variables()
    before = _values(variables)
    position_of = {id(v): i for i, v in enumerate(variables)}
    threshold = ElementThreshold(
        [_structure(variables)], lambda v: position_of[id(v)], 1e-4
    )
    threshold.apply(variables)
    kernel, bias, consumer, beta = _values(variables)
    assert kernel == [[0, _f32(0.2), _f32(2e-4)], [0, 0, 0]]
    # The bias of unit 1, as small, stays: the unit is alive.
    assert bias == [0, _f32(5e-5), _f32(0.3)]
    assert consumer == [[0, 1], [0, 0], [_f32(-3e-4), 0]]
    assert beta == before[3]


def test_a_weight_at_the_threshold_stays():
    variable = keras.Variable(np.array([[0.25, 0.24999]], np.float32))
    structure = Structure(
        "s", 2, (Slice(variable, "in", np.array([[0, 1]])),), roles=("in",)
    )
    ElementThreshold([structure], lambda v: 0, 0.25).apply([variable])
    np.testing.assert_array_equal(variable, [[0.25, 0.0]])


def test_weights_of_no_unit_stay():
    variable = keras.Variable(np.full((1, 3), 1e-6, np.float32))
    structure = Structure(
        "s", 1, (Slice(variable, "out", np.array([[-1, 0, -1]])),)
    )
    ElementThreshold([structure], lambda v: 0, 1e-4).apply([variable])
    np.testing.assert_array_equal(
        np.array(variable) == 0, [[False, True, False]]
    )


def test_a_variable_of_two_structures():
    variable = keras.Variable(np.full((2, 4), 1e-6, np.float32))
    first = Structure(
        "a", 2, (Slice(variable, "out", np.array([[0, 1, -1, -1]])),)
    )
    second = Structure(
        "b", 1, (Slice(variable, "out", np.array([[-1, -1, -1, 0]])),)
    )
    ElementThreshold([first, second], lambda v: 0, 1e-4).apply([variable])
    zero = np.array(variable) == 0
    np.testing.assert_array_equal(zero, [[True, True, False, True]] * 2)


def test_all_variables():
    variables = _variables()
    ElementThreshold([], lambda v: 0, 1e-4, True).apply(variables)
    kernel, bias, _, beta = _values(variables)
    assert kernel[0] == [0, _f32(0.2), _f32(2e-4)]
    assert bias == [0, 0, _f32(0.3)]
    assert beta == [0, 0, 1]


@pytest.mark.parametrize("threshold, dead", [(1e-4, [0]), (3e-4, [0, 2])])
def test_groups_go_by_their_norm(threshold, dead):
    variables = _variables()
    kernel = variables[0]
    before = np.array(kernel)
    groups = Groups("s", [Slice(kernel, "out", np.array([[0, 1, 2]]))], 3, [0])
    zero_groups([groups], variables, {0: kernel.value}, threshold)
    expected = before.copy()
    expected[:, dead] = 0
    np.testing.assert_array_equal(kernel, expected)
