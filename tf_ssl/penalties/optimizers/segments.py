"""Weights by the unit they belong to, in TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_ssl.penalties.optimizers.one_pass import one_pass, under_xla


class Segment:
    """The weights that one slice gives to the units of a structure.

    Args:
        position: Of the variable, in the lists that `Groups` reads.
        units: As `Slice.units`.
        size: Number of units of the structure.
        keep: Boolean array of the variable's shape, False at weights that
            another segment has already given to the same unit; None: no such.
    """

    def __init__(
        self,
        position: int,
        units: np.ndarray,
        size: int,
        keep: np.ndarray | None = None,
    ):
        self.position = position
        self.size = size
        self.units = units
        self.keep = keep
        flat = units.reshape(-1)
        self._axes = [a for a, n in enumerate(units.shape) if n == 1]
        self._in_order = np.array_equal(flat, np.arange(size))
        with tf.init_scope():
            self._unit = tf.constant(flat, tf.int32)
            # One entry behind the units: the weights of none.
            self._source = tf.constant(np.where(flat < 0, size, flat), tf.int32)
            self._keep = None if keep is None else tf.constant(keep)

        def reduce_squares(values):
            return self._reduce(tf.square(values))

        self._reduce_squares = (
            reduce_squares
            if keep is None
            else one_pass(reduce_squares, keep.size)
        )

    def sums(self, values):
        """Sums over each unit's weights.

        Args:
            values: Tensor of the variable's shape.

        Returns:
            `[size]`.
        """
        return self._of_units(self._reduce(values))

    def squares(self, values):
        """Sums over the squares of each unit's weights.

        Args:
            values: Tensor of the variable's shape.

        Returns:
            `[size]`.
        """
        if self._keep is not None or not self._axes or under_xla():
            return self._of_units(self._reduce_squares(values))
        # Writes no squares; XLA does not have it.
        norms = tf.raw_ops.EuclideanNorm(input=values, axis=self._axes)
        return self._of_units(tf.square(norms))

    def are_zero(self, values):
        """Whether all of each unit's weights are zero.

        Args:
            values: Tensor of the variable's shape.

        Returns:
            Boolean `[size]`.
        """
        if self._keep is not None:
            values = tf.where(self._keep, values, tf.zeros([], values.dtype))
        # Reads them and writes nothing of their size.
        low = tf.reduce_min(values, self._axes)
        high = tf.reduce_max(values, self._axes)
        alive = tf.logical_or(tf.not_equal(low, 0), tf.not_equal(high, 0))
        return tf.equal(self._of_units(tf.cast(alive, tf.float32)), 0)

    def _reduce(self, values):
        if self._keep is not None:
            values = tf.where(self._keep, values, tf.zeros([], values.dtype))
        return tf.reduce_sum(values, self._axes)

    def _of_units(self, totals):
        totals = tf.reshape(totals, [-1])
        if self._in_order:
            return totals
        # Units of -1 are dropped.
        return tf.math.unsorted_segment_sum(totals, self._unit, self.size)

    def spread(self, per_unit, elsewhere: float):
        """A value per unit, laid out as the weights.

        Args:
            per_unit: `[size]`.
            elsewhere: Value at weights of no unit.

        Returns:
            Tensor that broadcasts to the variable's shape.
        """
        elsewhere = tf.cast(elsewhere, per_unit.dtype)
        if not self._in_order:
            padded = tf.concat([per_unit, elsewhere[None]], 0)
            per_unit = tf.gather(padded, self._source)
        laid_out = tf.reshape(per_unit, self.units.shape)
        if self._keep is None:
            return laid_out
        return tf.where(self._keep, laid_out, elsewhere)

    def members(self) -> np.ndarray:
        """True at weights of some unit; broadcasts to the variable's shape."""
        owned = self.units >= 0
        return owned if self.keep is None else owned & self.keep


class Groups:
    """The units of a structure, each one group of the group Lasso.

    Args:
        name: Of the structure.
        slices: `Slice`s whose weights count.
        size: Number of units.
        positions: Position of each slice's variable.
        double_count: A weight that two slices give to the same unit counts
            twice, as in ISS; False: once.

    Attributes:
        segments: One a slice.
        num_weights: Number of weights of each unit, float64 `[size]`.
    """

    def __init__(self, name, slices, size, positions, double_count=False):
        self.name = name
        self.size = size
        self.segments = []
        self.num_weights = np.zeros(size)
        earlier: dict[int, list[np.ndarray]] = {}
        for part, position in zip(slices, positions, strict=True):
            shape = tuple(part.variable.shape)
            same = earlier.setdefault(position, [])
            keep = None if double_count else _not_yet(part.units, same, shape)
            same.append(part.units)
            segment = Segment(position, part.units, size, keep)
            self.segments.append(segment)
            self.num_weights += _count(segment, shape)

    def sums(self, values_of):
        """Sum of `values_of(segment)` over each unit's weights, `[size]`."""
        return tf.add_n([s.sums(values_of(s)) for s in self.segments])

    def norms(self, values):
        """Euclidean norm of each unit.

        Args:
            values: Values of the variables, by position.

        Returns:
            `[size]`.
        """
        return tf.sqrt(
            tf.add_n([s.squares(values[s.position]) for s in self.segments])
        )


def _not_yet(units, earlier, shape):
    """False where earlier slices give the weight to the same unit."""
    taken = np.zeros(shape, bool)
    for other in earlier:
        taken |= (units == other) & (units >= 0)
    return ~taken if taken.any() else None


def _count(segment, shape):
    """Number of weights of each unit."""
    members = np.broadcast_to(segment.members(), shape)
    axes = tuple(a for a, n in enumerate(segment.units.shape) if n == 1)
    per_entry = members.sum(axis=axes, keepdims=True)
    owned = segment.units >= 0
    return np.bincount(
        segment.units[owned],
        weights=np.broadcast_to(per_entry, segment.units.shape)[owned],
        minlength=segment.size,
    )
