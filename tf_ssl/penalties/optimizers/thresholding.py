"""Small weights become zeros: what makes sub-gradients end in sparsity.

Sub-gradient steps bring a group near zero and then around it. The papers set
every weight with |w| < 1e-4 to 0 after each step; the gradient of the penalty
is 0 at a zero group, so that it stays as long as the loss does not pull harder
than that.

Departure: of what `all_variables` does not name, a bias goes only with its
unit: where |b| is below the threshold and the weights that produce the unit
are all zero. Biases begin at zero, and one whose first steps are small would
never leave.

Reference: Wen et al., "Learning Structured Sparsity in Deep Neural Networks",
NIPS 2016 (ZEROUT_THRESHOLD of its code); Wen et al., "Learning Intrinsic
Sparse Structures within LSTM", ICLR 2018.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tf_ssl.penalties.optimizers.one_pass import one_pass
from tf_ssl.penalties.optimizers.segments import Segment


class ElementThreshold:
    """Zeroes small weights, each by itself.

    Acts on the slices with role "out" and "in".

    Args:
        structures: `Structure`s.
        position_of: Function from a variable to its position.
        threshold: Float > 0.
        all_variables: Every weight of every variable, as the papers.
    """

    def __init__(self, structures, position_of, threshold, all_variables=False):
        self._threshold = threshold
        self._all = all_variables
        self._members: dict[int, np.ndarray] = {}
        self._biases = []
        for structure in structures:
            self._add(structure, position_of)
        with tf.init_scope():
            self._covers = {
                p: None if members.all() else tf.constant(members)
                for p, members in self._members.items()
            }
        self._cuts: dict = {}  # position -> function of the value

    def _add(self, structure, position_of):
        kernels = [s for s in structure.of(("out",)) if not s.is_bias]
        for part in structure.of(("out", "in")):
            position = position_of(part.variable)
            if part.is_bias and kernels:
                producers = [
                    Segment(position_of(k.variable), k.units, structure.size)
                    for k in kernels
                ]
                segment = Segment(position, part.units, structure.size)
                self._biases.append((segment, producers))
                continue
            members = part.units >= 0
            before = self._members.get(position, False)
            self._members[position] = members | before

    def apply(self, variables) -> None:
        """Zeroes what is small.

        Args:
            variables: `keras.Variable`s, by position.
        """
        if self._all:
            for position, variable in enumerate(variables):
                self._cut(position, variable)
            return
        for position, cover in self._covers.items():
            self._cut(position, variables[position], cover)
        for segment, producers in self._biases:
            gone = tf.cast(
                tf.reduce_all(
                    [
                        s.are_zero(
                            tf.convert_to_tensor(variables[s.position].value)
                        )
                        for s in producers
                    ],
                    axis=0,
                ),
                tf.float32,
            )
            variable = variables[segment.position]
            small = self._small(tf.convert_to_tensor(variable.value))
            _zero(variable, small & (segment.spread(gone, 0) > 0))

    def _cut(self, position, variable, cover=None):
        """Zeroes small weights of a variable, where `cover` is True."""

        def cut(value):
            small = self._small(value)
            where = small if cover is None else small & cover
            return tf.where(where, tf.zeros([], value.dtype), value)

        if position not in self._cuts:
            num_weights = math.prod(variable.shape)
            self._cuts[position] = one_pass(cut, num_weights)
        value = tf.convert_to_tensor(variable.value)
        variable.assign(self._cuts[position](value))

    def _small(self, value):
        return tf.abs(value) < tf.cast(self._threshold, value.dtype)


def zero_groups(groups, variables, values, threshold) -> None:
    """Zeroes every unit whose norm is at most a threshold.

    Args:
        groups: List of `Groups`.
        variables: `keras.Variable`s, by position.
        values: Dict of their values by position.
        threshold: Float >= 0.
    """
    goes: dict[int, list] = {}
    for group in groups:
        norms = group.norms(values)
        small = norms <= tf.cast(threshold, norms.dtype)
        for segment in group.segments:
            spread = segment.spread(tf.cast(small, tf.float32), 0.0)
            goes.setdefault(segment.position, []).append(spread)
    for position, parts in goes.items():
        _zero(variables[position], sum(parts[1:], parts[0]) > 0)


def _zero(variable, where) -> None:
    value = tf.convert_to_tensor(variable.value)
    variable.assign(tf.where(where, tf.zeros([], value.dtype), value))
