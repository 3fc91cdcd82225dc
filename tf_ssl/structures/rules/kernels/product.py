"""Kernels: the readers and makers of units.

y[.., o, ..] = f(sum over i and taps of K[.., i, o] x[.., i, ..] + b[o]), for
any number of axes that are read (i) and made (o).
"""

from __future__ import annotations

import numpy as np

from tf_ssl.structures.rules.kernels.activations import (
    activate,
    before_activation,
    follow_activation,
)
from tf_ssl.structures.units import Space


class Product:
    """One kernel of a rule; see `Rule.multiplies` for the arguments."""

    def __init__(
        self,
        rule,
        kernel,
        reads,
        makes,
        shares,
        bias,
        bias_axes,
        activation,
        kind,
        keeps_constants,
        source,
    ):
        self.rule, self.kernel, self.source = rule, kernel, source
        rank = len(kernel.shape)

        def counted(axes):
            return {a % rank: b for a, b in axes.items()}

        self.reads, self.makes = counted(reads), counted(makes)
        self.shares = counted(shares)
        self.bias, self.bias_axes = bias, bias_axes
        self.activation, self.kind = activation, kind
        self.keeps_constants = keeps_constants
        self.made: dict[int, np.ndarray] = {}
        held = {*self.reads, *self.makes, *self.shares}
        self.taps = tuple(a for a in range(rank) if a not in held)

    def trace(self) -> dict:
        """Registers the weights; axis of the output -> elements."""
        rule, tracer, name = self.rule, self.rule.tracer, self.rule.name
        for k, axis in self.reads.items():
            ids = rule.follow(axis, self.source)
            tracer.slice(self.kernel, "in", ids, k)
        for k, axis in self.makes.items():
            kind = self.kind
            if len(self.makes) > 1 and axis != max(self.makes.values()):
                kind = "heads"
            ids = tracer.elements.new(self.kernel.shape[k], Space(name, kind))
            self.made[axis] = ids
            rule._set(rule.outputs[0], axis, ids)
            tracer.slice(self.kernel, "out", ids, k)
        inputs = rule.inputs[self.source]
        for k, axis in self.shares.items():
            if axis in inputs:
                tracer.slice(self.kernel, "out", inputs[axis], k)
                rule._set(rule.outputs[0], axis, inputs[axis])
        if self.bias is not None:
            for k, axis in self.bias_axes.items():
                ids = rule.outputs[0].get(axis)
                if ids is not None:
                    tracer.slice(self.bias, "out", ids, k)
        follow_activation(rule, self.activation)
        return self.made

    # Of a kernel [reads..., makes..., shares...], one axis each, by taps.

    def _ordered(self, array):
        order = (*self.reads, *self.makes, *self.shares)
        array = np.moveaxis(
            array, order, range(array.ndim - len(order), array.ndim)
        )
        return array.reshape(-1, *array.shape[array.ndim - len(order) :])

    def nonzero(self, read) -> np.ndarray:
        """Whether a weight of any tap is not zero."""

        def find():
            return self._ordered(read(self.kernel) != 0).any(axis=0)

        remember = getattr(read, "remember", None)
        if remember is None:
            return find()
        # The same for all passes of an analysis.
        return remember(self.kernel, (*self.reads, *self.makes), find)

    def sums(self, read) -> np.ndarray:
        """Sum over taps, in float64."""
        return self._ordered(read(self.kernel)).sum(axis=0, dtype=np.float64)

    def _constant_inputs(self, constants) -> np.ndarray:
        """`[reads...]`: the constant at each input of the kernel, or NaN."""
        sizes = [self.kernel.shape[k] for k in self.reads]
        result = np.full(sizes, np.nan)
        for position, axis in enumerate(self.reads.values()):
            values = constants.get(axis)
            if values is None:
                continue
            around = [1] * len(sizes)
            around[position] = -1
            values = np.broadcast_to(
                np.where(self._usable(values), values, np.nan).reshape(around),
                sizes,
            )
            result = np.where(np.isnan(result), values, result)
        return result

    def _usable(self, values):
        known = ~np.isnan(values)
        if self.keeps_constants or not self.rule.exact:
            return known
        return known & (values == 0)

    def constants(self, read, inputs) -> dict:
        """Constants along the axes of the output."""
        given = self._constant_inputs(inputs[self.source])
        unknown = np.isnan(given)
        nonzero = self.nonzero(read)
        if unknown.all():  # as a rule: then no sum is needed
            is_constant = ~nonzero.any(axis=tuple(range(given.ndim)))
            values = np.zeros(is_constant.shape)
        else:
            is_constant = ~nonzero[unknown].any(axis=0)
            known = given[~unknown]
            values = np.tensordot(known, self.sums(read)[~unknown], (0, 0))
        values = values + self._of_bias(read)
        values = np.where(is_constant, values, np.nan)
        values = activate(self.activation, values, read)
        found = {}
        for position, axis in enumerate(
            (*self.makes.values(), *self.shares.values())
        ):
            found[axis] = _same_over_others(values, position)
        # A channel that is constant at a place of another axis stays so if
        # what it is multiplied with is the same for all that is made.
        for a, b in self._others():
            zero = inputs[self.source][a] == 0
            rest = activate(
                self.activation,
                self._of_bias(read) + np.zeros(values.shape),
                read,
            )
            same = rest.size and not np.isnan(rest).any()
            same = same and (rest == rest.flat[0]).all()
            found[b] = np.where(zero & bool(same), rest.flat[0], np.nan)
        return found

    def _others(self):
        """Axes that pass the kernel by: (of the input, of the output)."""
        return [
            (a, b)
            for source, a, b, _ in self.rule._passes
            if source == self.source and a in self.rule.inputs[source]
        ]

    def _of_bias(self, read):
        """Bias `[makes..., shares...]`, 0 without one."""
        if self.bias is None:
            return 0.0
        value = read(self.bias).astype(np.float64)
        axes = [*self.makes.values(), *self.shares.values()]
        axis_of = {k % value.ndim: axis for k, axis in self.bias_axes.items()}
        positions = {
            k: axes.index(axis) for k, axis in axis_of.items() if axis in axes
        }
        if any(n > 1 for k, n in enumerate(value.shape) if k not in positions):
            return np.nan  # differs along an axis that the kernel passes by
        shape = [1] * len(axes)
        for k, position in positions.items():
            shape[position] = value.shape[k]
        others = [k for k in range(value.ndim) if k not in positions]
        order = [*others, *sorted(positions, key=positions.get)]
        return np.transpose(value, order).reshape(shape)

    def needs(self, read, wanted, gone) -> dict:
        """Which positions of the input have an influence."""
        weights = self.nonzero(read)
        reads, makes = len(self.reads), len(self.makes)
        for position, axis in enumerate(
            (*self.makes.values(), *self.shares.values())
        ):
            live = wanted[0].get(axis)
            if live is None:
                continue
            live = before_activation(self.rule, self.activation, live)
            if position < makes:
                live = live & ~gone[0][axis]
            around = [1] * weights.ndim
            around[reads + position] = -1
            weights = weights & live.reshape(around)
        found = {}
        for position, axis in enumerate(self.reads.values()):
            others = tuple(a for a in range(weights.ndim) if a != position)
            found[axis] = weights.any(axis=others)
        for position, axis in enumerate(self.shares.values()):
            at = reads + makes + position
            others = tuple(a for a in range(weights.ndim) if a != at)
            found[axis] = weights.any(axis=others)
        return {
            axis: need
            for axis, need in found.items()
            if axis in self.rule.inputs[self.source]
        }

    def foldable(self, constants) -> dict:
        """Where a removed constant can be folded, by read axis."""
        found = {}
        for axis in self.reads.values():
            if axis in constants:
                found[axis] = self._usable(constants[axis])
                if not (self.rule.adds_bias or self._has_bias()):
                    found[axis] &= constants[axis] == 0
        return found

    def _has_bias(self):
        """Whether the bias has an entry for each sum."""
        return self.bias is not None and {
            *self.makes.values(),
            *self.shares.values(),
        } <= set(self.bias_axes.values())

    def fold(self, read, constants) -> tuple:
        """(bias or None, delta): what removed constants add."""
        sizes = [self.kernel.shape[k] for k in self.reads]
        given = np.zeros(sizes)
        for position, axis in enumerate(self.reads.values()):
            if axis not in constants:
                continue
            around = [1] * len(sizes)
            around[position] = -1
            values = constants[axis].reshape(around)
            given = np.where(given == 0, values, given)
        sums = self.sums(read)
        reads = len(self.reads)
        delta = np.tensordot(given, sums, (range(reads), range(reads)))
        if self._has_bias():
            axes = [*self.makes.values(), *self.shares.values()]
            rank, shape = len(self.bias.shape), [1] * len(self.bias.shape)
            order = []
            for k in sorted(self.bias_axes, key=lambda k: k % rank):
                if self.bias_axes[k] in axes:
                    order.append(axes.index(self.bias_axes[k]))
                    shape[k] = self.bias.shape[k]
            delta = np.broadcast_to(
                np.transpose(delta, order).reshape(shape), self.bias.shape
            )
        return self.bias, delta


def _same_over_others(values: np.ndarray, position: int) -> np.ndarray:
    rows = np.moveaxis(values, position, 0)
    rows = rows.reshape(len(rows), -1)
    same = (rows == rows[:, :1]).all(axis=1)
    return np.where(same, rows[:, 0], np.nan)
