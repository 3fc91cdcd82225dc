"""Tests of tf_ssl/storage/formats.py."""

import numpy as np
import pytest

from tf_ssl.sparse.storage import formats


@pytest.mark.parametrize("block", [(1, 1), *formats.BLOCKS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_back(block, dtype):
    random = np.random.default_rng(0)
    for density in (0.0, 0.1, 1.0):
        matrix = random.normal(size=(32, 48)).astype(dtype)
        matrix[random.random(matrix.shape) > density] = 0
        arrays = formats.encode(matrix, block)
        np.testing.assert_array_equal(
            formats.decode(arrays, matrix.shape, block), matrix
        )


def test_indices_are_of_the_smallest_type():
    for columns, expected in (
        (256, "uint8"),
        (257, "uint16"),
        (2**16 + 1,) * 2,
    ):
        matrix = np.zeros((1, columns), np.float32)
        matrix[0, -1] = 1
        arrays = formats.encode(matrix)
        if isinstance(expected, int):
            expected = "uint32"
        assert arrays["columns"].dtype == expected
        assert arrays["columns"].tolist() == [columns - 1]


def test_a_block_is_kept_whole():
    matrix = np.zeros((4, 4), np.float32)
    matrix[2, 1] = 5
    arrays = formats.encode(matrix, (2, 1))
    assert arrays["values"].tolist() == [[[5.0], [0.0]]]
    assert arrays["columns"].tolist() == [1]
    assert arrays["starts"].tolist() == [0, 0, 1]
    assert formats.encode(matrix, (8, 1)) is None


def test_the_smallest_is_found():
    random = np.random.default_rng(0)
    alive = np.kron(random.random((8, 32)) < 0.2, np.ones((8, 1)))
    matrix = alive * random.normal(size=(64, 32))
    block, arrays = formats.smallest(matrix)
    assert block == (8, 1)
    assert formats.num_bytes(arrays) < formats.num_bytes(formats.encode(matrix))
    scattered = matrix * (random.random(matrix.shape) < 0.3)
    assert formats.smallest(scattered)[0] == (1, 1)
    assert formats.smallest(np.ones((3, 5)), formats.BLOCKS) == (None, None)


def test_kernels_as_matrices():
    kernel = np.arange(24).reshape(2, 3, 4)
    matrix = formats.to_matrix(kernel)
    assert matrix.shape == (4, 6)
    assert matrix[1].tolist() == [1, 5, 9, 13, 17, 21]
    np.testing.assert_array_equal(
        formats.from_matrix(matrix, kernel.shape), kernel
    )
