"""The proximal step of the group Lasso over groups that overlap.

Solves, with y the weights after the optimizer's own step, d its metric and
t = learning rate * strength,

    x = argmin_x 1/2 sum_i d_i (x_i - y_i)^2 + t sum_g ||x_g||_2

for groups that share weights, as row k and column j of a recurrent kernel do.
Dykstra's algorithm in its parallel form: each group keeps a correction p_g;
with c_i the number of groups that weight i is in,

    v_g = x + p_g;  q_g = proximal step of group g alone at v_g, metric d / c;
    p_g <- v_g - q_g;  x <- y - sum_g p_g / c

These are gradient steps on the dual problem, whose variables are the p_g, and
are accelerated as such (FISTA). A round costs as much as the step over disjoint
groups, and two more copies of the weights are held for each slice.

Reference: Dykstra, "An algorithm for restricted least squares regression",
JASA 1983; Combettes and Pesquet, "Proximal splitting methods in signal
processing", 2011 (parallel form); Beck and Teboulle, "A fast iterative
shrinkage-thresholding algorithm", 2009.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_ssl.penalties.optimizers.proximal import removed_fractions

MAX_ROUNDS = 300


def overlaps(groups, shapes) -> tuple[int, str, str] | None:
    """A variable with a weight in two units, and the structures of these.

    Args:
        groups: List of `Groups`.
        shapes: Shape of each variable, by position.

    Returns:
        (position, name, name) or None.
    """
    of_position: dict[int, list] = {}
    for group in groups:
        for segment in group.segments:
            others = of_position.setdefault(segment.position, [])
            members = segment.members()
            for name, other in others:
                both = members & other
                if np.broadcast_to(both, shapes[segment.position]).any():
                    return segment.position, name, group.name
            others.append((group.name, members))
    return None


def multiplicity(groups, shapes) -> dict[int, np.ndarray]:
    """Number of groups that each weight is in, at least 1, by position."""
    count: dict[int, np.ndarray] = {}
    for group in groups:
        for segment in group.segments:
            members = segment.members().astype(np.int32)
            before = count.get(segment.position, np.int32(0))
            count[segment.position] = before + members
    return {
        position: np.maximum(np.broadcast_to(c, shapes[position]), 1)
        for position, c in count.items()
    }


def dykstra_step(groups, values, steps, metrics, multiplicities):
    """As `proximal.proximal_step`, for groups that overlap.

    Args:
        groups: List of `Groups`.
        values: Dict of tensors by position, y.
        steps: t of each unit, one `[size]` for each of `groups`.
        metrics: Dict of tensors by position, d > 0; None: d = 1.
        multiplicities: Dict of tensors by position, c, in the dtype of the
            values.

    Returns:
        Dict of x, dict of y - x, and the norms of x, one `[size]` for each of
        `groups`. Groups that go are exactly 0.
    """
    positions = sorted(multiplicities)
    shares = {
        p: (1.0 if metrics is None else metrics[p]) / multiplicities[p]
        for p in positions
    }

    def alone(x, corrections):
        """Each group's own step: what it takes, and the fractions of it."""
        corrections, taken, removed = iter(corrections), [], []
        for group, step in zip(groups, steps, strict=True):
            moved, fractions = _alone(
                group,
                [x[s.position] + next(corrections) for s in group.segments],
                step,
                shares,
            )
            taken += moved
            removed += fractions
        return taken, removed

    def combine(taken):
        x = dict(values)
        segments = [s for group in groups for s in group.segments]
        for segment, moved in zip(segments, taken, strict=True):
            p = segment.position
            x[p] = x[p] - moved / multiplicities[p]
        return x

    def improve(taken, before, number, change):
        del change
        inertia = number / (number + 3)
        ahead = [
            now + inertia * (now - then)
            for now, then in zip(taken, before, strict=True)
        ]
        x = combine(ahead)
        after, _ = alone(x, ahead)
        x_after = combine(after)
        change = [tf.reduce_max(tf.abs(x_after[p] - x[p])) for p in positions]
        return after, taken, number + 1, tf.reduce_max(tf.stack(change))

    largest = [tf.reduce_max(tf.abs(values[p])) for p in positions]
    dtype = largest[0].dtype
    tolerance = 4 * np.finfo(dtype.as_numpy_dtype).eps * tf.reduce_max(largest)
    zeros = [
        tf.zeros_like(values[s.position])
        for group in groups
        for s in group.segments
    ]
    taken, *_ = tf.while_loop(
        lambda taken, before, number, change: change > tolerance,
        improve,
        (zeros, zeros, tf.zeros([], dtype), tf.constant(np.inf, dtype)),
        maximum_iterations=MAX_ROUNDS,
    )
    x = combine(taken)
    # The limit is 0 where a group's own step takes all: x only tends to it.
    _, removed = alone(x, taken)
    segments = [s for group in groups for s in group.segments]
    for segment, fraction in zip(segments, removed, strict=True):
        p = segment.position
        x[p] = tf.where(fraction >= 1, tf.zeros_like(x[p]), x[p])
    norms = [group.norms(x) for group in groups]
    return (
        {p: x[p] for p in positions},
        {p: values[p] - x[p] for p in positions},
        norms,
    )


def _alone(group, values, step, shares):
    """The step of one structure's units, each segment with values of its own.

    Segments of one variable hold different corrections, so they stand as if
    each had a variable of its own.
    """
    separate = _Separate(group)
    by_segment = dict(enumerate(values))
    metrics = {i: shares[s.position] for i, s in enumerate(group.segments)}
    fractions, _ = removed_fractions(separate, by_segment, step, metrics)
    taken = [v * f for v, f in zip(values, fractions, strict=True)]
    return taken, fractions


class _Separate:
    """`Groups` whose segments are numbered instead of their variables."""

    def __init__(self, group):
        self.segments = [_Numbered(i, s) for i, s in enumerate(group.segments)]

    def sums(self, values_of):
        return tf.add_n([s.sums(values_of(s)) for s in self.segments])

    def norms(self, values):
        return tf.sqrt(self.sums(lambda s: tf.square(values[s.position])))


class _Numbered:
    def __init__(self, number, segment):
        self.position = number
        self.sums = segment.sums
        self.spread = segment.spread
