"""Kernels as lists of their non-zeros."""

import numpy as np
import pytest
import tensorflow as tf

from custom_ops import SparseKernel


def test_from_dense_and_back():
    dense = np.zeros((2, 3, 4, 5), np.float32)
    dense.ravel()[[1, 7, 119]] = 1.0, np.nan, -2.0
    kernel = SparseKernel.from_dense(dense)
    assert kernel.positions.numpy().tolist() == [1, 7, 119]
    np.testing.assert_array_equal(kernel.values, [1.0, np.nan, -2.0])
    np.testing.assert_array_equal(kernel.to_dense(), dense)
    assert kernel.num_nonzeros == 3
    assert kernel.density == 3 / 120
    assert repr(kernel) == "SparseKernel(shape=(2, 3, 4, 5), num_nonzeros=3)"


@pytest.mark.parametrize(
    ("pattern", "kernel"),
    [
        ("dense", np.ones((3, 3, 2, 16))),
        ("columns", np.ones((3, 3, 4, 16)) * [[1], [0], [1], [0]]),
        ("columns", np.ones((3, 3, 4, 6)) * [0, 1, 1, 1, 0, 1]),
        ("block16x1", None),
        ("block8x8", None),
        ("block4x1", None),
        ("unstructured", None),
    ],
)
def test_pattern(pattern, kernel):
    random = np.random.default_rng(0)
    if kernel is None:
        if pattern == "unstructured":
            kernel = random.random((3, 3, 16, 32)) < 0.3
        else:
            rows, columns = map(int, pattern.removeprefix("block").split("x"))
            blocks = random.random((9 * 16 // columns, 32 // rows)) < 0.3
            kernel = np.kron(blocks, np.ones((columns, rows)))
            kernel = kernel.reshape(3, 3, 16, 32)
    assert SparseKernel.from_dense(kernel).pattern() == pattern


def test_tensors_and_variables_are_kept_as_they_are():
    values = tf.Variable([1.0, 2.0])
    positions = tf.constant([0, 3])
    kernel = SparseKernel(positions, values, (1, 1, 2, 2))
    assert kernel.positions is positions
    values.assign([5.0, 6.0])
    kernel = SparseKernel(positions, values, (1, 1, 2, 2))
    assert kernel.to_dense().numpy().tolist() == [[[[5.0, 0.0], [0.0, 6.0]]]]


@pytest.mark.parametrize(
    ("positions", "values", "shape", "message"),
    [
        (
            [0],
            [1.0],
            (3, 3, 2),
            "Invalid value for argument shape. Expected four integers >= 1: "
            "height, width, channels, filters. Received: shape=(3, 3, 2)",
        ),
        (
            [0],
            [1.0],
            (1, 1, 2**16, 2**15),
            "Invalid value for argument shape. Expected a kernel of fewer than "
            "2^31 elements. Received: shape=(1, 1, 65536, 32768)",
        ),
        (
            [0, 2**31],
            [1.0, 2.0],
            (1, 1, 2, 2),
            "Invalid value for argument positions. Expected ascending integers "
            "in [0, 4), one axis. Received: array([         0, 2147483648])",
        ),
        (
            [1, 1],
            [1.0, 2.0],
            (1, 1, 2, 2),
            "Invalid value for argument positions. Expected ascending integers "
            "in [0, 4), one axis. Received: array([1, 1])",
        ),
        (
            [0, 1],
            [1.0],
            (1, 1, 2, 2),
            "Invalid value for argument values. Expected one value for each "
            "position. Received: positions of shape (2,), values of shape (1,)",
        ),
        (
            [0],
            tf.constant([1.0], tf.float64),
            (1, 1, 2, 2),
            "Invalid value for argument values. Expected float32 or bfloat16. "
            "Received: float64",
        ),
    ],
)
def test_invalid(positions, values, shape, message):
    with pytest.raises(ValueError) as error:
        SparseKernel(positions, values, shape)
    assert str(error.value) == message


def test_dense_kernels_of_another_rank_are_refused():
    with pytest.raises(ValueError) as error:
        SparseKernel.from_dense(np.ones((3, 4)))
    assert str(error.value) == (
        "Invalid value for argument shape. Expected four integers >= 1: "
        "height, width, channels, filters. Received: shape=(3, 4)"
    )
