"""Numbers of positions, and which of them lie together."""

from __future__ import annotations

import numpy as np

FOREIGN = -1  # what is not followed
ABSENT = -2  # what an operation itself puts there: zeros


def ties_of(rows: np.ndarray) -> tuple | None:
    """(number of units, labels of each row), or None where rows share some.

    Args:
        rows: Labels `[positions along an axis, all others]`.
    """
    first = rows[:, :1]
    if (rows == first).all():
        labels = [(int(x),) for x in first[:, 0]]
        real = {x[0] for x in labels if x[0] >= 0}
        return (len(real), labels) if real else None
    if len(rows) == 1:
        return None
    labels = [tuple(np.unique(row).tolist()) for row in rows]
    real = [x for row in labels for x in row if x >= 0]
    if not real or len(real) != len(set(real)):
        return None
    return sum(any(x >= 0 for x in row) for row in labels), labels
