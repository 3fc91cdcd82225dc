"""What moves numbers about without computing with them."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import (
    Rule,
    Unknown,
    data_axis,
    structure_rule,
)
from tf_ssl.structures.units import Axis


class OnAxis(Rule):
    """Passes units on if they are on the layer's own axis of channels."""

    def axis_of_units(self):
        """Of the input, from the front or the end."""
        return data_axis(self.op)

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        if (
            inputs[0] is None
            or inputs[0].axis % rank != self.axis_of_units() % rank
        ):
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} does not work along units"
            )
        out_rank = len(self.call.output_shapes[0])
        axis = self.axis_of_units() % rank
        return [Axis(self.out_axis(axis, rank, out_rank), inputs[0].ids)]

    def out_axis(self, axis, rank, out_rank):
        """Of the output, from the end."""
        return axis - out_rank


@structure_rule(
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
)
class Spatial(OnAxis):
    """Pooling, upsampling, cropping: a constant stays what it is."""


@structure_rule(
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
class GlobalPooling(OnAxis):
    """One number a channel."""

    def out_axis(self, axis, rank, out_rank):
        return axis - rank if out_rank == rank else -1


@structure_rule(
    layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D
)
class ZeroPadding(OnAxis):
    """Zeros beside a constant: no constant any more."""

    def constants(self, read, inputs):
        if not self.exact:
            return [inputs[0]]
        return [np.where(inputs[0] == 0, 0.0, np.nan)]


class Relabel(Rule):
    """Follows units through any rearrangement of one example's numbers.

    The positions of units are arranged like the numbers themselves; then one
    axis must tell units apart and no other.
    """

    def rearrange(self, array):
        """The operation on `[batch, ...]`, in NumPy."""
        return np.reshape(array, (1, *self.call.output_shapes[0][1:]))

    def trace(self, tracer, inputs):
        shape = self.call.input_shapes[0]
        out_shape = self.call.output_shapes[0]
        if inputs[0] is None:
            return Unknown(self.call).keep_all(
                tracer,
                inputs,
                f"{self.op.name} moves an axis that is not followed",
            )
        size = math.prod(d for d in shape[1:] if d is not None)
        if None in shape[1:] or None in out_shape[1:] or size > 1e8:
            return Unknown(self.call).keep_all(
                tracer,
                inputs,
                f"{self.op.name} changes a shape that is not known",
            )
        axis = inputs[0].axis % len(shape)
        positions = np.arange(shape[axis], dtype=np.int32)
        around = [1] * len(shape)
        around[axis] = -1
        moved = self.rearrange(
            np.broadcast_to(positions.reshape(around), (1, *shape[1:]))
        )
        for out_axis in range(1, moved.ndim):
            first = tuple(
                slice(None) if a == out_axis else slice(0, 1)
                for a in range(moved.ndim)
            )
            if (moved == moved[first]).all():
                self.source = moved[first].ravel()  # position in the input
                return [Axis(out_axis - moved.ndim, inputs[0].ids[self.source])]
        return Unknown(self.call).keep_all(
            tracer, inputs, f"{self.op.name} spreads units over several axes"
        )

    def constants(self, read, inputs):
        if not hasattr(self, "source"):
            return Unknown(self.call).constants(read, inputs)
        return [inputs[0][self.source]]

    def needs(self, read, outputs, inputs, gone):
        if not hasattr(self, "source"):
            return [np.ones(len(x), bool) for x in inputs]
        counts = np.bincount(
            self.source, weights=outputs[0], minlength=len(inputs[0])
        )
        return [counts > 0]


@structure_rule(layers.Flatten)
class Flatten(Relabel):
    """All axes to one."""

    def rearrange(self, array):
        if self.op.data_format == "channels_first" and array.ndim > 2:
            array = np.moveaxis(array, 1, -1)
        return super().rearrange(array)


@structure_rule(layers.Reshape, "Reshape")
class Reshape(Relabel):
    """The same numbers in another shape."""

    def trace(self, tracer, inputs):
        (self.made,) = super().trace(tracer, inputs)
        return [self.made]

    def config(self, keep):
        if self.made is None or keep(self.made.ids).all():
            return {}
        shape = list(self.call.output_shapes[0])
        shape[self.made.axis] = int(keep(self.made.ids).sum())
        if isinstance(self.op, layers.Reshape):
            return {"target_shape": tuple(shape[1:])}
        return {"newshape": (-1, *shape[1:])}


@structure_rule(layers.Permute, "Transpose")
class Permute(Relabel):
    """Axes in another order."""

    def rearrange(self, array):
        if isinstance(self.op, layers.Permute):
            return np.transpose(array, (0, *self.op.dims))
        return np.transpose(array, self.op.axes)


@structure_rule("ExpandDims", "Squeeze")
class Dims(Relabel):
    """An axis of one more or less."""


@structure_rule("Mean", "Max", "Sum")
class Reduce(Rule):
    """Over axes that are not the units'."""

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        axes = self.op.axis
        axes = range(rank) if axes is None else np.atleast_1d(axes) % rank
        if inputs[0] is None or inputs[0].axis % rank in axes or 0 in axes:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} reduces over units"
            )
        if self.op.keepdims:
            return [inputs[0]]
        after = sum(a > inputs[0].axis % rank for a in axes)
        return [Axis(inputs[0].axis + after, inputs[0].ids)]

    def constants(self, read, inputs):
        if type(self.op).__name__ != "Sum":
            return [inputs[0]]
        return [np.where(inputs[0] == 0, 0.0, np.nan)]

    def needs(self, read, outputs, inputs, gone):
        if len(outputs[0]) != len(inputs[0]):
            return [np.ones(len(x), bool) for x in inputs]
        return [outputs[0]]


@structure_rule("Flip")
class Flip(Rule):
    """Another order along an axis, such as time."""

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        axes = (
            () if self.op.axis is None else np.atleast_1d(self.op.axis) % rank
        )
        if inputs[0] is None or not len(axes) or inputs[0].axis % rank in axes:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} turns units round"
            )
        return [inputs[0]]
