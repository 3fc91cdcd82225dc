"""Groups that share no weights, for proximal steps.

A kernel between two structures has rows, which read the units of one, and
columns, which make those of the other. Where structures count both (recurrent
units, by default), a weight is in two groups, and there is no proximal step in
closed form.
"""

from __future__ import annotations

import numpy as np


def share_weights(first, second) -> bool:
    """Whether a weight belongs to units of two `Slice`s."""
    if first.variable is not second.variable:
        return False
    members, others = first.units >= 0, second.units >= 0
    if members.all() and others.all():
        return members.size > 0 and others.size > 0
    return bool(np.any(members & others))


def disjoint_slices(structures) -> list[tuple[list, list]]:
    """What each structure counts, so that each weight is in one group.

    Weights that make a unit stay with it. Those that read it count only where
    they make no unit of these structures: of stacked LSTMs the columns of each
    kernel and recurrent kernel, and the rows of the layer behind the last one.

    A unit whose made weights are zero is silent only if its biases are zero,
    too. They cannot count (a forget gate begins at 1), so they go with it:
    where readers were left out, they become 0 with the other weights of their
    unit.

    Args:
        structures: `Structure`s.

    Returns:
        For each, the `Slice`s that count, and the biases that go with them. A
        structure that would count nothing counts what it does elsewhere:
        groups overlap then.
    """
    counted = [structure.counted() for structure in structures]
    taken = [s for parts in counted for s in parts if s.role != "in"]
    chosen = []
    for structure, parts in zip(structures, counted, strict=True):
        kept = []
        for part in parts:
            if part.role == "in":
                if any(share_weights(part, other) for other in taken):
                    continue
                taken.append(part)
            kept.append(part)
        biases = []
        if len(kept) < len(parts):
            biases = [s for s in structure.slices if s.is_bias]
        chosen.append((kept, biases) if kept else (parts, []))
    return chosen
