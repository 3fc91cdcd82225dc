"""Kernels: the readers and makers of units.

y[.., o, ..] = f(sum over i and taps of K[.., i, o] x[.., i, ..] + b[o]), for
any number of axes that are read (i) and made (o).
"""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.structures.units import Space

# Activations that mix units, so that none can go.
MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax", "glu"}


def activate(activation, values: np.ndarray) -> np.ndarray:
    """An activation, or a layer as one, of constants; NaN stays."""
    if activation is None or activation is keras.activations.linear:
        return values
    unknown = np.isnan(values)
    known = keras.ops.convert_to_tensor(np.where(unknown, 0, values), "float32")
    if isinstance(activation, keras.Layer):
        slope = getattr(activation, "alpha", None)
        if slope is not None:  # PReLU's: negative ones meet its slopes
            slope = _units_of(slope, values.shape)
            if slope is None:
                return np.where(unknown | (values < 0), np.nan, values)
            return np.where(values < 0, values * slope, values)
        known = known[None]
        result = activation(known)[0]
    else:
        result = activation(known)
    result = keras.ops.convert_to_numpy(result).astype(np.float64)
    return np.where(unknown, np.nan, result.reshape(values.shape))


def _units_of(alpha, shape):
    """Slopes of units, if they are the same at all places."""
    value = keras.ops.convert_to_numpy(alpha)
    if value.shape[-1:] != shape[-1:] or value.size != value.shape[-1]:
        return None
    return value.reshape(-1)


def mixes(activation) -> bool:
    """Whether an activation mixes units."""
    name = getattr(activation, "__name__", type(activation).__name__)
    return name.lower() in MIXING_ACTIVATIONS


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
        rule, tracer = self.rule, self.rule.tracer
        inputs, name = rule.inputs[self.source], rule.name
        for k, axis in self.reads.items():
            if axis not in inputs:
                ids = tracer.elements.new(
                    self.kernel.shape[k], Space(name, "fixed")
                )
                tracer.elements.fix(ids, f"{name} reads an axis of places")
                inputs = rule.inputs[self.source] = {**inputs, axis: ids}
            tracer.slice(self.kernel, "in", inputs[axis], k)
        for k, axis in self.makes.items():
            kind = self.kind
            if len(self.makes) > 1 and axis != max(self.makes.values()):
                kind = "heads"
            ids = tracer.elements.new(self.kernel.shape[k], Space(name, kind))
            self.made[axis] = ids
            rule._set(rule.outputs[0], axis, ids)
            tracer.slice(self.kernel, "out", ids, k)
        for k, axis in self.shares.items():
            if axis in inputs:
                tracer.slice(self.kernel, "out", inputs[axis], k)
                rule._set(rule.outputs[0], axis, inputs[axis])
        if self.bias is not None:
            for k, axis in self.bias_axes.items():
                ids = rule.outputs[0].get(axis)
                if ids is not None:
                    tracer.slice(self.bias, "out", ids, k)
        if mixes(self.activation):
            text = getattr(
                self.activation, "__name__", type(self.activation).__name__
            )
            for axis, ids in self.made.items():
                if axis == -1:
                    tracer.elements.fix(
                        ids,
                        f"{name} has the activation {text}",
                        only_if_exact=True,
                    )
        elif isinstance(self.activation, keras.Layer):
            if not self.activation.built:  # Keras waits for numbers
                self.activation.build(rule.call.output_shapes[0])
            alpha = getattr(self.activation, "alpha", None)
            if isinstance(alpha, keras.Variable):
                for axis, ids in self.made.items():
                    if -axis <= len(alpha.shape) and (
                        alpha.shape[axis] == len(ids)
                    ):
                        tracer.slice(
                            alpha, "norm", ids, axis % len(alpha.shape)
                        )
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
        return self._ordered(read(self.kernel) != 0).any(axis=0)

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
        reads = len(self.reads)
        around = given.reshape(
            *given.shape, *[1] * (len(self.makes) + len(self.shares))
        )
        unknown = np.isnan(around)
        nonzero, sums = self.nonzero(read), self.sums(read)
        summed = tuple(range(reads))
        is_constant = ~(nonzero & unknown).any(axis=summed)
        values = (np.where(unknown, 0.0, around) * sums).sum(axis=summed)
        values = values + self._of_bias(read)
        values = np.where(is_constant, values, np.nan)
        if mixes(self.activation):
            values = np.full_like(values, np.nan)
        else:
            values = activate(self.activation, values)
        found = {}
        for position, axis in enumerate(
            (*self.makes.values(), *self.shares.values())
        ):
            found[axis] = _same_over_others(values, position)
        # A channel that is constant at a place of another axis stays so if
        # what it is multiplied with is the same for all that is made.
        for a, b in self._others():
            zero = inputs[self.source][a] == 0
            rest = activate(self.activation, self._of_bias(read) + 0 * values)
            same = rest.size and not np.isnan(rest).any()
            same = same and (rest == rest.flat[0]).all()
            found[b] = np.where(zero & bool(same), rest.flat[0], np.nan)
            if mixes(self.activation):
                found[b] = np.full_like(found[b], np.nan)
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
        positions = {
            k % value.ndim: axes.index(axis)
            for k, axis in self.bias_axes.items()
            if axis in axes
        }
        if len(positions) < value.ndim:
            return np.nan  # differs along an axis that is not followed
        shape = [1] * len(axes)
        for k, position in positions.items():
            shape[position] = value.shape[k]
        order = sorted(positions, key=positions.get)
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
        """Whether what is folded has the shape of the bias."""
        return self.bias is not None and len(self.bias.shape) == (
            len(self.makes) + len(self.shares)
        )

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
        if self.bias is not None and delta.ndim > 1:
            axes = [*self.makes.values(), *self.shares.values()]
            order = [
                axes.index(self.bias_axes[k])
                for k in sorted(
                    self.bias_axes, key=lambda k: k % len(self.bias.shape)
                )
            ]
            delta = np.transpose(delta, order)
        return self.bias, delta


def _same_over_others(values: np.ndarray, position: int) -> np.ndarray:
    rows = np.moveaxis(values, position, 0)
    rows = rows.reshape(len(rows), -1)
    same = (rows == rows[:, :1]).all(axis=1)
    return np.where(same, rows[:, 0], np.nan)
