"""A matrix with zeros as arrays: compressed rows, of elements or of blocks.

Rows are filters or neurons, columns what they read: `[outputs, inputs]`.
"""

from __future__ import annotations

import math

import numpy as np

# Rows times columns of blocks that are tried.
BLOCKS = ((2, 1), (4, 1), (8, 1), (16, 1), (4, 4), (8, 8), (16, 16))


def encode(
    matrix: np.ndarray, block: tuple[int, int] = (1, 1), mask=None
) -> dict | None:
    """A matrix as its blocks that are not zero, row by row.

    Args:
        matrix: `[rows, columns]`. NaN is not zero.
        block: Rows and columns of a block; (1, 1): single elements (CSR).
        mask: Booleans of the matrix's shape: what counts as not zero. None:
            what is not zero.

    Returns:
        Dict of `starts` `[rows / h + 1]`, the blocks in front of each row of
        blocks; `columns` `[blocks]`, their columns; `values` `[blocks, h, w]`,
        or `[blocks]` of single elements. Indices are of the smallest unsigned
        type that holds them. None where blocks do not divide the matrix.

    >>> csr = encode(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
    >>> {name: array.tolist() for name, array in csr.items()}
    {'starts': [0, 1, 1, 3], 'columns': [1, 0, 1], 'values': [2.0, 3.0, 4.0]}
    """
    (rows, columns), (height, width) = matrix.shape, block
    if rows % height or columns % width:
        return None

    def cut(array):  # [block rows, block columns, h, w]
        shape = rows // height, height, columns // width, width
        return array.reshape(shape).transpose(0, 2, 1, 3)

    alive = cut(matrix != 0 if mask is None else mask).any(axis=(2, 3))
    values = cut(matrix)[alive]
    starts = np.concatenate([[0], np.cumsum(alive.sum(axis=1))])
    return {
        "starts": _smallest(starts, len(values)),
        "columns": _smallest(np.nonzero(alive)[1], columns // width - 1),
        "values": values.reshape(-1) if block == (1, 1) else values,
    }


def decode(arrays: dict, shape: tuple[int, int], block=(1, 1)) -> np.ndarray:
    """The matrix of `encode`, `shape`."""
    (rows, columns), (height, width) = shape, block
    blocks = np.zeros(
        (rows // height, columns // width, height, width),
        arrays["values"].dtype,
    )
    counts = np.diff(arrays["starts"].astype(np.int64))
    places = np.repeat(np.arange(len(counts)), counts), arrays["columns"]
    blocks[places] = arrays["values"].reshape(-1, height, width)
    return blocks.transpose(0, 2, 1, 3).reshape(rows, columns)


def smallest(matrix: np.ndarray, blocks=((1, 1), *BLOCKS)):
    """The encoding of the fewest bytes.

    Returns:
        (block, arrays), or (None, None) where no block divides the matrix.
    """
    best, arrays = None, None
    for block in blocks:
        encoded = encode(matrix, block)
        if encoded is None:
            continue
        if arrays is None or num_bytes(encoded) < num_bytes(arrays):
            best, arrays = block, encoded
    return best, arrays


def num_bytes(arrays: dict) -> int:
    """Bytes of an encoding."""
    return sum(array.nbytes for array in arrays.values())


def to_matrix(kernel: np.ndarray) -> np.ndarray:
    """`[..., outputs]` as `[outputs, inputs]`."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def from_matrix(matrix: np.ndarray, shape) -> np.ndarray:
    """`[outputs, inputs]` as the kernel of this shape."""
    return np.ascontiguousarray(matrix.T).reshape(shape)


def _smallest(indices: np.ndarray, largest: int) -> np.ndarray:
    bits = max(1, largest).bit_length()
    size = 8 * 2 ** max(0, math.ceil(math.log2(bits / 8)))
    return indices.astype(f"uint{size}")
