"""The proximal step of the group Lasso over disjoint groups.

In the metric d of an optimizer that moves weight i by gradient_i / d_i, with
y the weights after its own step and t = learning rate * strength:

    x = argmin_x 1/2 sum_i d_i (x_i - y_i)^2 + t sum_g ||x_g||_2

For d = 1 this is the group soft threshold x_g = y_g max(0, 1 - t / ||y_g||).
Otherwise x_g = 0 if ||d y_g|| <= t; else, with r = ||x_g||, the root of
||d y_g / (d r + t)|| = 1,

    x_i = y_i d_i r / (d_i r + t)

Reference: Yuan and Lin, "Model selection and estimation in regression with
grouped variables", JRSS B 2006; Combettes and Vu, "Variable metric
forward-backward splitting", Optimization 2014.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

MAX_ITERATIONS = 30


def proximal_step(groups, values, steps, metrics=None):
    """Weights after the proximal step, what it took from them, and norms.

    Args:
        groups: List of `Groups`; no weight is in two of their units.
        values: Dict of tensors by position, y.
        steps: t of each unit, one `[size]` for each of `groups`.
        metrics: Dict of tensors by position, d > 0; None: d = 1.

    Returns:
        Dict of x, dict of y - x, and the norms of x, one `[size]` for each of
        `groups`. Groups that go are exactly 0.
    """
    fractions: dict[int, list] = {}
    norms = []
    for group, step in zip(groups, steps, strict=True):
        removed, norm = removed_fractions(group, values, step, metrics)
        norms.append(norm)
        for segment, fraction in zip(group.segments, removed, strict=True):
            fractions.setdefault(segment.position, []).append(fraction)
    after, taken = {}, {}
    for position, parts in fractions.items():
        # Each weight is in one unit at most: all other parts are 0 there.
        fraction = sum(parts[1:], parts[0])
        after[position] = values[position] * (1 - fraction)
        taken[position] = values[position] * fraction
    return after, taken, norms


def removed_fractions(group, values, step, metrics=None):
    """1 - x / y of each weight.

    Args:
        group: `Groups`.
        values: Dict of tensors by position, y.
        step: `[size]`, t.
        metrics: Dict of tensors by position, d; None: d = 1.

    Returns:
        One tensor for each segment, which broadcasts to its variable: 1 where
        the unit goes, 0 at weights of no unit; and the norms of x, `[size]`.
    """
    if metrics is None:
        norms = group.norms(values)
        one = tf.ones_like(norms)
        fraction = tf.where(norms > step, step / norms, one)
        after = tf.nn.relu(norms - step)
        return [s.spread(fraction, 0.0) for s in group.segments], after
    norms = norms_after(group, values, step, metrics)
    fractions = []
    for segment in group.segments:
        threshold = segment.spread(step, 0.0)
        radius = segment.spread(norms, 1.0)
        # t / (0 + t) is 1: a unit without norm goes whole.
        fractions.append(
            tf.math.divide_no_nan(
                threshold, metrics[segment.position] * radius + threshold
            )
        )
    return fractions, norms


def norms_after(group, values, step, metrics):
    """Norm r of each unit after the proximal step, 0 for units that go.

    Newton's method on 1 / p(r) - 1 = 0 with p(r) = ||d y / (d r + t)||: that
    function is concave and grows, so the iterates rise to the root from any
    point below it (the secular equation of trust regions). The first point is
    Newton's step from r = 0, in closed form.

    Args:
        group: `Groups`.
        values: Dict of tensors by position, y.
        step: `[size]`, t.
        metrics: Dict of tensors by position, d > 0.

    Returns:
        `[size]`.
    """
    squares = {
        s.position: tf.square(values[s.position] * metrics[s.position])
        for s in group.segments
    }
    pull = group.sums(lambda s: squares[s.position])
    cubes = group.sums(lambda s: squares[s.position] * metrics[s.position])
    alive = tf.sqrt(pull) > step
    first = (tf.sqrt(pull) - step) * pull / cubes
    # Any positive number stands for units that go.
    first = tf.where(alive, first, tf.ones_like(first))
    largest = group.norms(values)
    tolerance = 8 * np.finfo(first.dtype.as_numpy_dtype).eps

    def improve(norms, change):
        del change
        ratios = [
            metrics[s.position]
            / (metrics[s.position] * s.spread(norms, 1.0) + s.spread(step, 0.0))
            for s in group.segments
        ]
        squares = [
            tf.square(values[s.position] * ratio)
            for s, ratio in zip(group.segments, ratios, strict=True)
        ]
        second = tf.add_n(
            [s.sums(v) for s, v in zip(group.segments, squares, strict=True)]
        )
        third = tf.add_n(
            [
                s.sums(v * ratio)
                for s, v, ratio in zip(
                    group.segments, squares, ratios, strict=True
                )
            ]
        )
        rise = (tf.sqrt(second) - 1) * second / third
        # Rounding at the root, and units that go.
        useful = alive & tf.math.is_finite(rise)
        rise = tf.where(useful, rise, tf.zeros_like(rise))
        improved = tf.where(useful, tf.minimum(norms + rise, largest), norms)
        return improved, tf.reduce_max(tf.abs(rise) / norms)

    norms, _ = tf.while_loop(
        lambda norms, change: change > tolerance,
        improve,
        (first, tf.constant(np.inf, first.dtype)),
        maximum_iterations=MAX_ITERATIONS,
    )
    return tf.where(alive, norms, tf.zeros_like(norms))
