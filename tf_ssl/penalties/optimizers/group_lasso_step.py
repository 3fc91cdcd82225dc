"""What the group Lasso does to gradients, and to weights after an update."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tf_ssl.penalties.optimizers import dykstra, inner_metric
from tf_ssl.penalties.optimizers.one_pass import one_pass
from tf_ssl.penalties.optimizers.proximal import proximal_step
from tf_ssl.penalties.optimizers.segments import Groups, Segment
from tf_ssl.penalties.optimizers.thresholding import (
    ElementThreshold,
    zero_groups,
)

_SCALES = {
    "none": np.ones_like,
    "sqrt": np.sqrt,
    "inv_sqrt": lambda sizes: 1 / np.sqrt(np.maximum(sizes, 1)),
}


class GroupLassoStep:
    """The group Lasso of `GroupLassoOptimizer`, bound to variables.

    Args:
        structures: `Structure`s, without the slices that are not trained.
        counted: For each, the slices that count, and biases that become 0
            with the other weights of their unit.
        variables: Trained `keras.Variable`s.
        position_of: Function from a variable to its position in `variables`.
        settings: `GroupLassoOptimizer`, whose arguments it reads.
    """

    def __init__(self, structures, counted, variables, position_of, settings):
        self._variables = variables
        self._position_of = position_of
        self._update = settings.update
        self._metric = settings.metric
        self._threshold = settings.papers.threshold
        self.groups = []
        scales = []
        self._followers = []
        for structure, (slices, biases) in zip(
            structures, counted, strict=True
        ):
            groups = Groups(
                structure.name,
                slices,
                structure.size,
                [position_of(part.variable) for part in slices],
                settings.papers.double_count,
            )
            self.groups.append(groups)
            self._followers.append(
                [
                    Segment(position_of(s.variable), s.units, structure.size)
                    for s in biases
                ]
            )
            scales.append(_SCALES[settings.scale](groups.num_weights))
        self._positions = sorted(
            {s.position for g in self.groups for s in g.segments}
        )
        of_double = [variables[p].dtype == "float64" for p in self._positions]
        self._dtype = tf.float64 if any(of_double) else tf.float32
        shapes = {p: tuple(variables[p].shape) for p in self._positions}
        self._adders = {
            p: one_pass(self._adder(p), math.prod(shape))
            for p, shape in shapes.items()
        }
        self._element_threshold = None
        if self._update == "subgradient" and self._threshold:
            papers = settings.papers
            if papers.threshold_by == "element" or papers.threshold_all:
                self._element_threshold = ElementThreshold(
                    structures,
                    position_of,
                    self._threshold,
                    papers.threshold_all,
                )
        if self._update == "proximal" and settings.overlap is None:
            self._check_disjoint(shapes)
        with tf.init_scope():
            self._scales = [tf.constant(s, self._dtype) for s in scales]
            self._multiplicities = None
            if self._update == "proximal" and settings.overlap == "dykstra":
                self._multiplicities = {
                    p: tf.constant(c, self._dtype)
                    for p, c in dykstra.multiplicity(
                        self.groups, shapes
                    ).items()
                }

    def _check_disjoint(self, shapes):
        shared = dykstra.overlaps(self.groups, shapes)
        if shared is not None:
            position, first, second = shared
            names = f"structures {first} and {second}"
            if first == second:
                names = f"structure {first}"
            raise ValueError(
                "update='proximal' takes groups that share no weights. Units "
                f"of {names} share weights of the variable "
                f"{self._variables[position].path}. Leave one out (strength="
                "{pattern: ...}), or pass other roles, overlap='dykstra' or "
                "update='subgradient'."
            )

    def penalty(self, strength):
        """The penalty at the current weights.

        Args:
            strength: `[structures]`.
        """
        values = self._values()
        return self._sum(
            self._of_units(strength), [g.norms(values) for g in self.groups]
        )

    def add_gradients(self, gradients, variables, strength):
        """Gradients with those of the penalty, and the penalty.

        Args:
            gradients: Of the loss; tensors or IndexedSlices.
            variables: Theirs.
            strength: `[structures]`.
        """
        values = self._values()
        of_units = self._of_units(strength)
        norms = [g.norms(values) for g in self.groups]
        factors: dict[int, list] = {}
        for groups, of_unit, norm in zip(
            self.groups, of_units, norms, strict=True
        ):
            factor = tf.math.divide_no_nan(of_unit, norm)
            for segment in groups.segments:
                factors.setdefault(segment.position, []).append(factor)
        result = []
        for gradient, variable in zip(gradients, variables, strict=True):
            position = self._position_of(variable)
            if position in factors:
                gradient = self._adders[position](
                    tf.convert_to_tensor(gradient),
                    values[position],
                    *factors[position],
                )
            result.append(gradient)
        return result, self._sum(of_units, norms)

    def _adder(self, position):
        """Function that adds a variable's gradient of the penalty to another.

        Its arguments are the other, the variable's value, and strength / norm
        of the units of each of its segments.
        """
        segments = [
            s for g in self.groups for s in g.segments if s.position == position
        ]

        def add(gradient, value, *factors):
            parts = [
                s.spread(f, 0.0) for s, f in zip(segments, factors, strict=True)
            ]
            added = value * sum(parts[1:], parts[0])
            return gradient + tf.cast(added, gradient.dtype)

        return add

    def after_update(self, optimizer, learning_rate, strength):
        """Threshold, or proximal step, after the optimizer's update.

        Args:
            optimizer: That which has just updated the variables.
            learning_rate: Of that update.
            strength: `[structures]`.

        Returns:
            The penalty after a proximal step, else None.
        """
        if self._update == "subgradient":
            self.apply_threshold()
            return None
        of_units = self._of_units(strength)
        learning_rate = tf.cast(learning_rate, self._dtype)
        steps = [learning_rate * s for s in of_units]
        points, metrics = {}, None
        for p in sorted({*self._positions, *self._positions_of_followers()}):
            point = inner_metric.point(optimizer, self._variables[p])
            points[p] = tf.cast(point, self._dtype)
        if self._metric == "inner":
            metrics = self._metrics(optimizer)
        if self._multiplicities is None:
            after, taken, norms = proximal_step(
                self.groups, points, steps, metrics
            )
        else:
            after, taken, norms = dykstra.dykstra_step(
                self.groups, points, steps, metrics, self._multiplicities
            )
        for p, stays in self._stays([tf.equal(n, 0) for n in norms]).items():
            value = after.get(p, points[p])
            after[p] = value * stays
            taken[p] = points[p] - after[p]
        for p in after:
            variable = self._variables[p]
            inner_metric.finish(
                optimizer,
                variable,
                tf.cast(after[p], variable.dtype),
                taken[p],
            )
        return self._sum(of_units, norms)

    def apply_threshold(self) -> None:
        """Zeroes what the threshold says."""
        if self._element_threshold is not None:
            self._element_threshold.apply(self._variables)
        elif self._threshold:
            zero_groups(
                self.groups, self._variables, self._values(), self._threshold
            )

    def dead_units(self) -> list:
        """Units whose norm is 0, a boolean `[size]` for each structure."""
        values = self._values()
        return [tf.equal(g.norms(values), 0) for g in self.groups]

    def zero_units(self, dead) -> None:
        """Zeroes units.

        Args:
            dead: As `dead_units` gives them.
        """
        values = self._values()
        for groups, units in zip(self.groups, dead, strict=True):
            stays = tf.cast(tf.logical_not(units), self._dtype)
            for segment in groups.segments:
                values[segment.position] *= segment.spread(stays, 1.0)
        for p, stays in self._stays(dead).items():
            value = values.get(p, self._variables[p].value)
            values[p] = tf.cast(value, self._dtype) * stays
        for p, value in values.items():
            variable = self._variables[p]
            variable.assign(tf.cast(value, variable.dtype))

    def _positions_of_followers(self):
        return {s.position for parts in self._followers for s in parts}

    def _stays(self, dead):
        """By position, 0 at biases that go with their unit, else 1."""
        factors: dict = {}
        for segments, units in zip(self._followers, dead, strict=True):
            stays = tf.cast(tf.logical_not(units), self._dtype)
            for segment in segments:
                factor = segment.spread(stays, 1.0)
                factors[segment.position] = factor * factors.get(
                    segment.position, 1.0
                )
        return factors

    def _values(self):
        # Tensors: a cast to its own type would leave a variable, whose value
        # changes.
        return {
            p: tf.cast(
                tf.convert_to_tensor(self._variables[p].value), self._dtype
            )
            for p in self._positions
        }

    def _of_units(self, strength):
        """Strength of each unit: one `[size]` for each structure."""
        strength = tf.cast(strength, self._dtype)
        return [strength[i] * scale for i, scale in enumerate(self._scales)]

    def _metrics(self, optimizer):
        metrics = {}
        for p in self._positions:
            metric = inner_metric.diagonal(optimizer, self._variables[p])
            if metric is None:
                return None
            metrics[p] = tf.cast(metric, self._dtype)
        return metrics

    def _sum(self, of_units, norms):
        return tf.add_n(
            [
                tf.reduce_sum(of_unit * norm)
                for of_unit, norm in zip(of_units, norms, strict=True)
            ]
        )
