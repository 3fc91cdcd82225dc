"""What joins tensors: sums, products, concatenation."""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule, Unknown, structure_rule
from tf_ssl.structures.rules.pointwise import Pointwise
from tf_ssl.structures.units import Axis


class Join(Rule):
    """Elementwise on several tensors: their units are the same units."""

    combine = None  # function of two arrays of constants

    def trace(self, tracer, inputs):
        if len(inputs) == 1:
            return self._with_number(tracer, inputs)
        followed = [axis for axis in inputs if axis is not None]
        size = max((len(axis.ids) for axis in followed), default=0)
        whole = [axis for axis in followed if len(axis.ids) == size]
        reason = f"{self.op.name} joins axes that do not match"
        if (
            len({axis.axis for axis in whole}) != 1
            or any(len(axis.ids) not in (1, size) for axis in followed)
            or any(
                axis is None and len(shape) and shape[-1] != 1
                for axis, shape in zip(
                    inputs, self.call.input_shapes, strict=True
                )
            )
        ):
            return Unknown(self.call).keep_all(tracer, inputs, reason)
        for axis in followed:
            if len(axis.ids) != size:
                tracer.elements.fix(
                    axis.ids, f"{self.op.name} spreads it over all units"
                )
        for axis in whole[1:]:
            tracer.elements.union(whole[0].ids, axis.ids)
        return [whole[0]]

    def _with_number(self, tracer, inputs):
        arguments = [
            x
            for x in (*self.call.arguments[0], *self.call.arguments[1].values())
            if not hasattr(x, "_keras_history")
        ]
        if any(np.ndim(x) > 0 for x in arguments if not isinstance(x, str)):
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} has an array as its argument"
            )
        return [inputs[0]]

    def constants(self, read, inputs):
        if len(inputs) == 1:
            return [Pointwise(self.call).of_constants(inputs[0])]
        size = max(map(len, inputs))
        result = np.broadcast_to(self._fill(inputs[0], size), [size])
        for other in inputs[1:]:
            result = self.combine(result, self._fill(other, size))
        return [self.finish(result, len(inputs))]

    def finish(self, result, count):
        """After all were combined."""
        return result

    @staticmethod
    def _fill(values, size):
        return np.full(size, np.nan) if len(values) == 0 else values

    def needs(self, read, outputs, inputs, gone):
        return [
            outputs[0]
            if len(x) == len(outputs[0])
            else np.full(len(x), outputs[0].any())
            for x in inputs
        ]


@structure_rule(layers.Add, "Add")
class Add(Join):
    """Sum; a summand that is constant everywhere can go."""

    combine = staticmethod(np.add)


@structure_rule(layers.Subtract, "Subtract")
class Subtract(Join):
    """Difference."""

    combine = staticmethod(np.subtract)


@structure_rule(layers.Average)
class Average(Join):
    """Mean."""

    combine = staticmethod(np.add)

    def finish(self, result, count):
        return result / count


@structure_rule(layers.Maximum, "Maximum")
class Maximum(Join):
    """Largest; NaN, not constant, stays."""

    combine = staticmethod(np.maximum)


@structure_rule(layers.Minimum, "Minimum")
class Minimum(Join):
    """Smallest."""

    combine = staticmethod(np.minimum)


@structure_rule("TrueDivide", "Divide")
class Divide(Join):
    """Quotient."""

    @staticmethod
    def combine(a, b):
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = a / b
        return np.where(np.isfinite(quotient), quotient, np.nan)


@structure_rule(layers.Multiply, "Multiply")
class Multiply(Join):
    """Product: zero if one factor is."""

    @staticmethod
    def combine(a, b):
        return np.where((a == 0) | (b == 0), 0.0, a * b)

    def needs(self, read, outputs, inputs, gone):
        needs = super().needs(read, outputs, inputs, gone)
        if len(inputs) == 1:
            return needs
        zero = np.broadcast_to(
            self.constants(read, inputs)[0] == 0, outputs[0].shape
        )
        return [
            need & ~zero
            if len(need) == len(zero)
            else np.full(len(need), (outputs[0] & ~zero).any())
            for need in needs
        ]


@structure_rule(layers.Concatenate, "Concatenate")
class Concatenate(Rule):
    """One after the other, along the units or along another axis."""

    def trace(self, tracer, inputs):
        rank = len(self.call.output_shapes[0])
        along = self.op.axis % rank - rank
        if any(axis is None for axis in inputs):
            return Unknown(self.call).keep_all(
                tracer,
                inputs,
                f"{self.op.name} joins an axis that is not followed",
            )
        if len({axis.axis for axis in inputs}) != 1:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} joins different axes"
            )
        self.along_units = along == inputs[0].axis
        if self.along_units:
            return [Axis(along, np.concatenate([axis.ids for axis in inputs]))]
        for axis in inputs[1:]:
            tracer.elements.union(inputs[0].ids, axis.ids)
        return [inputs[0]]

    def constants(self, read, inputs):
        if not hasattr(self, "along_units"):
            return Unknown(self.call).constants(read, inputs)
        if self.along_units:
            return [np.concatenate(inputs)]
        same = np.all([x == inputs[0] for x in inputs], axis=0)
        return [np.where(same, inputs[0], np.nan)]

    def needs(self, read, outputs, inputs, gone):
        if not hasattr(self, "along_units"):
            return [np.ones(len(x), bool) for x in inputs]
        if not self.along_units:
            return [outputs[0]] * len(inputs)
        ends = np.cumsum([len(x) for x in inputs])[:-1]
        return np.split(outputs[0], ends)
