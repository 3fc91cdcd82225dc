"""How much of a kernel is zero: elements, columns, rows, blocks."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.structures import group_specs
from tf_ssl.structures import groups as groups_lib
from tf_ssl.structures.kernels import Kernel, find_kernels

# What the authors' solver prints for each layer, in its order.
MEASURES = ("element", "column", "row", "block")


def sparsity(
    kernel, kind="auto", conv_groups=1, block=None, threshold=0.0
) -> dict[str, float]:
    """Fractions of zero elements, columns, rows and blocks of a kernel.

    Rows and columns are those of the lowered (GEMM) matrix: a row is a filter
    or output neuron, a column a (height, width, cin) or input neuron over all
    filters (of a bank of a grouped convolution). Of LSTM and GRU kernels a row
    is a unit with its gates.

    >>> import numpy as np
    >>> kernel = np.array([[0.0, 0.0], [0.0, 1.0]])  # dense: [inputs, outputs]
    >>> sparsity(kernel)
    {'element': 0.75, 'column': 0.5, 'row': 0.5}

    Args:
        kernel: Array, tensor or variable.
        kind: As in `tf_ssl.GroupLasso`.
        conv_groups: Banks of a grouped convolution.
        block: (h, w): of h rows times w columns; adds "block". None: no blocks.
        threshold: Float >= 0. An element counts as zero if |w| <= threshold,
            a group if its Euclidean norm is. Defaults to 0.

    Returns:
        Dict from "element", "column", "row" and "block" to fractions in
        [0, 1].

    Raises:
        ValueError: The kernel does not have rows and columns, or such blocks.

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016; order and names as in the authors' logs.
    """
    counts = count_zeros(kernel, kind, conv_groups, block, threshold)
    return {name: _divide(*pair) for name, pair in counts.items()}


def count_zeros(
    kernel, kind="auto", conv_groups=1, block=None, threshold=0.0
) -> dict[str, tuple[int, int]]:
    """Numbers of zero elements, columns, rows and blocks, and of all.

    Args:
        kernel: See `sparsity`, as the other arguments.
        kind: See there.
        conv_groups: See there.
        block: See there.
        threshold: See there.

    Returns:
        Dict from a measure to (number of zeros, number of all).
    """
    threshold = checks.not_negative("threshold", threshold)
    value = np.asarray(keras.ops.convert_to_numpy(kernel), np.float64)
    specs = {"column": "column", "row": "row"}
    if block is not None:
        specs["block"] = group_specs.block_spec(block)
    counts = {"element": _count(np.abs(value), threshold)}
    for name, spec in specs.items():
        part = groups_lib.partition(spec, value.shape, kind, conv_groups)
        counts[name] = _count(part.norms(value), threshold)
    return counts


def model_sparsity(
    model, block=None, threshold=0.0
) -> dict[str, dict[str, float]]:
    """Sparsity of each kernel of a built model, and of all together.

    >>> inputs = keras.Input([4])
    >>> zeros = keras.layers.Dense(2, kernel_initializer="zeros", name="fc")
    >>> model = keras.Model(inputs, zeros(inputs))
    >>> model_sparsity(model)["fc/kernel"]
    {'element': 1.0, 'column': 1.0, 'row': 1.0}

    Args:
        model: Built Keras model.
        block: See `sparsity`. Kernels that it does not divide have no "block".
        threshold: See `sparsity`.

    Returns:
        Dict from the path of each kernel, without the model's name, to what
        `sparsity` returns; the last entry, "total", counts the zeros of all.
    """
    rows = count_model_zeros(find_kernels(model), block, threshold)
    rows.append(("total", add_counts(counts for _, counts in rows)))
    return {
        kernel: {name: _divide(*pair) for name, pair in counts.items()}
        for kernel, counts in rows
    }


def count_model_zeros(
    kernels: list[Kernel], block=None, threshold=0.0
) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """(name, `count_zeros`) of each kernel."""
    return [
        (
            kernel.name,
            count_zeros(
                kernel.variable,
                kernel.kind,
                kernel.conv_groups,
                block if _divides(block, kernel) else None,
                threshold,
            ),
        )
        for kernel in kernels
    ]


def add_counts(rows) -> dict[str, tuple[int, int]]:
    """Sums of `count_zeros` of several kernels."""
    totals: dict[str, tuple[int, int]] = {}
    for counts in rows:
        for name, (zeros, size) in counts.items():
            before = totals.get(name, (0, 0))
            totals[name] = before[0] + zeros, before[1] + size
    return {name: totals[name] for name in MEASURES if name in totals}


def _divides(block, kernel: Kernel) -> bool:
    if block is None:
        return False
    spec = group_specs.block_spec(block)
    shape = kernel.variable.shape
    try:
        groups_lib.partition(spec, shape, kernel.kind, kernel.conv_groups)
    except ValueError:
        return False
    return True


def _count(norms: np.ndarray, threshold: float) -> tuple[int, int]:
    return int(np.count_nonzero(norms <= threshold)), norms.size


def _divide(zeros: int, size: int) -> float:
    return zeros / size if size else 0.0
