"""Sums and factors by units, against loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.penalties.optimizers.segments import Groups, Segment
from tf_ssl.structures.structure import Slice, Structure

RNG = np.random.default_rng(0)

LAYOUTS = {
    "filters": ((3, 3, 4, 6), np.arange(6).reshape(1, 1, 1, 6), 6),
    "channels": ((3, 3, 4, 6), np.arange(4).reshape(1, 1, 4, 1), 4),
    "block": ((3, 2), np.zeros((1, 1), int), 1),
    "gates": ((5, 12), np.tile(np.arange(3), 4).reshape(1, 12), 3),
    "reversed": ((4, 3), np.array([[2, 1, 0]]), 3),
    "part": ((4, 5), np.array([[-1, 1, 0, -1, 1]]), 2),
    "strided": ((6, 2), np.array([0, 1, 2, 0, 1, 2]).reshape(6, 1), 3),
    "grouped": (
        (3, 4),
        np.array([[0, 0, 1, 1], [2, 2, 3, 3], [-1, 3, 0, 1]]),
        4,
    ),
    "gru bias": ((2, 6), np.array([[0, 1, 0, 1, 0, 1]]), 2),
    "bias": ((4,), np.array([0, 1, 2, 3]), 4),
    "unused unit": ((2, 2), np.array([[0, 2]]), 4),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_sums_and_spread(name, dtype):
    shape, units, size = LAYOUTS[name]
    values = RNG.normal(size=shape).astype(dtype)
    segment = Segment(0, units, size)
    full = np.broadcast_to(units, shape)
    expected = [values[full == u].sum() for u in range(size)]
    sums = segment.sums(tf.constant(values))
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-6)

    per_unit = RNG.normal(size=size).astype(dtype)
    spread = np.broadcast_to(segment.spread(tf.constant(per_unit), 7.0), shape)
    np.testing.assert_array_equal(
        spread, np.where(full < 0, dtype_of(7, dtype), per_unit[full])
    )


def dtype_of(value, dtype):
    return np.dtype(dtype).type(value)


def _recurrent():
    """Columns, rows and a consumer of 3 units of a simple recurrent layer."""
    kernel = keras.Variable(
        RNG.normal(size=(2, 6)), dtype="float64", name="kernel"
    )
    recurrent = keras.Variable(
        RNG.normal(size=(3, 6)), dtype="float64", name="u"
    )
    gates = np.tile(np.arange(3), 2)
    return Structure(
        "rnn/units",
        3,
        (
            Slice(kernel, "out", gates[None]),
            Slice(recurrent, "out", gates[None]),
            Slice(recurrent, "in", np.arange(3)[:, None]),
        ),
        roles=("out", "in"),
    )


@pytest.mark.parametrize("double_count", [False, True])
def test_norms_are_those_of_the_structure(double_count):
    structure = _recurrent()
    slices = structure.of()
    groups = Groups("rnn/units", slices, 3, [0, 1, 1], double_count)
    values = {
        0: tf.constant(slices[0].variable.numpy()),
        1: tf.constant(slices[1].variable.numpy()),
    }
    np.testing.assert_allclose(
        groups.norms(values),
        structure.norms(double_count=double_count),
        rtol=1e-12,
    )
    # 2 inputs and 3 rows times 2 gates; a row of 6, 2 of which are the unit's
    # own columns.
    expected = 4 + 6 + 6 if double_count else 4 + 6 + 4
    np.testing.assert_array_equal(groups.num_weights, [expected] * 3)


def test_a_weight_named_three_times_counts_once():
    variable = keras.Variable([[3.0, 4.0]], name="w")
    part = Slice(variable, "out", np.array([[0, 1]]))
    groups = Groups("s", [part] * 3, 2, [0, 0, 0])
    np.testing.assert_array_equal(groups.norms({0: variable.value}), [3, 4])
    np.testing.assert_array_equal(groups.num_weights, [1, 1])
    assert not groups.segments[1].members().any()


def test_in_a_compiled_function():
    segment = Segment(0, LAYOUTS["part"][1], 2)

    @tf.function(jit_compile=True)
    def both(values):
        return segment.sums(values), segment.spread(tf.constant([1.0, 2.0]), 0)

    sums, spread = both(tf.ones([4, 5]))
    np.testing.assert_array_equal(sums, [4, 8])
    np.testing.assert_array_equal(spread, [[0, 2, 1, 0, 2]])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_squares_and_zeros(name, jit_compile):
    shape, units, size = LAYOUTS[name]
    values = RNG.normal(size=shape).astype("float32")
    full = np.broadcast_to(units, shape)
    values[full == 1] = 0.0
    segment = Segment(0, units, size)

    @tf.function(jit_compile=jit_compile)
    def both(values):
        return segment.squares(values), segment.are_zero(values)

    squares, zeros = both(tf.constant(values))
    expected = [np.square(values[full == u]).sum() for u in range(size)]
    np.testing.assert_allclose(squares, expected, rtol=1e-5, atol=1e-6)
    assert zeros.numpy().tolist() == [
        not values[full == u].any() for u in range(size)
    ]
