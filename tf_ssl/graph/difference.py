"""How far the outputs of two models are from each other."""

from __future__ import annotations

import numpy as np

# Values as large as this, equal in both, mark what is masked, and are no scale.
_MASKED = 1e9


def relative_difference(expected, actual) -> float:
    """Largest difference relative to the largest value of one output.

    max|a - b| / max|a|, in float64; max|b| where a is all zero; NaN where
    either holds one. Elements of 1e9 and more that are the same in both, such
    as the -1e30 of a masked score, have no part in max|a|.

    Args:
        expected: a, array.
        actual: b, array of the same shape.

    Raises:
        ValueError: The shapes differ.

    >>> relative_difference([1.0, -4.0], [1.0, -3.0])
    0.25
    >>> relative_difference([1.0, -4.0, -1e30], [1.0, -3.0, -1e30])
    0.25
    """
    expected = np.asarray(expected, np.float64)
    actual = np.asarray(actual, np.float64)
    if expected.shape != actual.shape:
        raise ValueError(
            "Expected two outputs of the same shape. Received: shapes "
            f"{expected.shape} and {actual.shape}"
        )
    if not expected.size:
        return 0.0
    masked = (np.abs(expected) >= _MASKED) & (expected == actual)
    largest = np.max(np.abs(expected), where=~masked, initial=0.0)
    # inf - inf is NaN: they are told apart from equal outputs.
    with np.errstate(invalid="ignore"):
        difference = np.max(np.abs(expected - actual))
        return float(difference / largest if largest else difference)
