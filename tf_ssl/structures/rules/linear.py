"""Layers that multiply by a kernel: the readers and makers of units."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import (
    MIXING_ACTIVATIONS,
    Rule,
    Unknown,
    data_axis,
    structure_rule,
)
from tf_ssl.structures.units import Axis, Space


def activate(activation, values: np.ndarray) -> np.ndarray:
    """An activation of constants; NaN stays."""
    unknown = np.isnan(values)
    result = keras.ops.convert_to_numpy(
        activation(
            keras.ops.convert_to_tensor(np.where(unknown, 0, values), "float32")
        )
    ).astype(np.float64)
    return np.where(unknown, np.nan, result)


def any_tap(kernel: np.ndarray) -> np.ndarray:
    """Whether a weight of any tap is not zero: `[*taps, a, b]` to `[a, b]`."""
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))


def sum_of_taps(kernel: np.ndarray) -> np.ndarray:
    """Sum over taps in float64: `[*taps, a, b]` to `[a, b]`."""
    return kernel.sum(axis=tuple(range(kernel.ndim - 2)), dtype=np.float64)


def dead_borders(op, kernel: np.ndarray) -> tuple | None:
    """How many rows of taps are zero at both ends of each axis.

    With padding "same" and stride 1 a kernel without them does the same.

    Args:
        op: Convolution.
        kernel: `[*taps, ., .]`.
    """
    if op.padding != "same" or any(s != 1 for s in op.strides):
        return None
    borders = []
    for axis in range(kernel.ndim - 2):
        others = tuple(a for a in range(kernel.ndim) if a != axis)
        live = np.flatnonzero((kernel != 0).any(axis=others))
        size = kernel.shape[axis]
        ends = min(live[0], size - 1 - live[-1]) if len(live) else size
        borders.append(int(min(ends, (size - 1) // 2)))
    return tuple(borders)


class Linear(Rule):
    """y = W x + b: reads units of x, makes units of y."""

    is_reader = True
    kind = "units"
    # Not so where a border has fewer taps, or outputs differ in their taps.
    keeps_constants = True

    def kernels(self):
        """(variable, axis of inputs, axis of outputs) of each kernel."""
        return [(self.op.kernel, 0, 1)]

    def followed_axis(self) -> int:
        """Axis of units of the input and the output."""
        return -1

    def size(self) -> int:
        """Units it makes."""
        return self.op.units

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        axis = self.followed_axis() % rank
        if inputs[0] is None or inputs[0].axis % rank != axis:
            tracer.elements.fix(
                [] if inputs[0] is None else inputs[0].ids,
                f"{self.op.name} reads another axis",
            )
            size = self.call.input_shapes[0][axis]
            ids = tracer.elements.new(
                size, Space(self.op.name, "fixed", ("out",))
            )
            tracer.elements.fix(ids, f"{self.op.name} reads another axis")
            inputs = [Axis(axis - rank, ids)]
        made = tracer.elements.new(
            self.size(), Space(self.op.name, self.kind, ("out",))
        )
        self.made = made
        self.slices(tracer, inputs[0].ids, made)
        activation = getattr(self.op, "activation", None)
        if getattr(activation, "__name__", "") in MIXING_ACTIVATIONS:
            tracer.elements.fix(
                made, f"{self.op.name} has the activation {activation.__name__}"
            )
        out_rank = len(self.call.output_shapes[0])
        return [Axis(self.followed_axis() % out_rank - out_rank, made)]

    def slices(self, tracer, read, made):
        """Registers the weights."""
        for variable, in_axis, out_axis in self.kernels():
            tracer.slice(variable, "in", read, in_axis)
            tracer.slice(variable, "out", made, out_axis)
        tracer.slice(self.op.bias, "out", made, -1)

    def bias_units(self) -> np.ndarray:
        """The element of each entry of a bias."""
        return self.made

    def matrix(self, read, of_kernel) -> np.ndarray:
        """`any_tap` or `sum_of_taps` of the weights, `[in, out]`."""
        ((variable, in_axis, out_axis),) = self.kernels()
        kernel = read(variable)
        return of_kernel(np.moveaxis(kernel, (in_axis, out_axis), (-2, -1)))

    def foldable(self, read, constants, index):
        known = ~np.isnan(constants)
        if self.keeps_constants or not self.exact:
            return known
        return known & (constants == 0)

    def constants(self, read, inputs):
        usable = self.foldable(read, inputs[0], 0)
        is_constant = ~self.matrix(read, any_tap)[~usable].any(axis=0)
        sums = self.matrix(read, sum_of_taps)
        values = np.where(usable, inputs[0], 0.0) @ sums
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        values = np.where(is_constant, values, np.nan)
        activation = getattr(self.op, "activation", None)
        name = getattr(activation, "__name__", "linear")
        if name in MIXING_ACTIVATIONS:
            return [np.full_like(values, np.nan)]
        return [values if name == "linear" else activate(activation, values)]

    def needs(self, read, outputs, inputs, gone):
        nonzero = self.matrix(read, any_tap)
        return [nonzero[:, outputs[0] & ~gone[0]].any(axis=1)]

    def folds(self, read, constants, index):
        sums = self.matrix(read, sum_of_taps)
        return [(self.op.bias, constants @ sums)]

    def config(self, keep):
        return {"units": int(keep(self.made).sum())}


structure_rule(layers.Dense)(Linear)


@structure_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Conv(Linear):
    """Convolution; groups lose equally many channels and filters each."""

    kind = "filters"

    @property
    def keeps_constants(self):
        """Zeros come in at the border unless the padding is valid."""
        return self.op.padding == "valid" or max(self.op.kernel_size) == 1

    def kernels(self):
        return [(self.op.kernel, -2, -1)]

    def followed_axis(self):
        return data_axis(self.op)

    def size(self):
        return self.op.filters

    def slices(self, tracer, read, made):
        groups = self.op.groups
        if groups == 1:
            return super().slices(tracer, read, made)
        kernel = self.op.kernel
        self.banks = read.reshape(groups, -1), made.reshape(groups, -1)
        tracer.banks += self.banks
        # [channel of a group, filter]
        table = np.repeat(self.banks[0].T, self.banks[1].shape[1], axis=1)
        shape = [1] * (len(kernel.shape) - 2) + list(table.shape)
        tracer.slice(kernel, "in", table.reshape(shape))
        tracer.slice(kernel, "out", made, -1)
        tracer.slice(self.op.bias, "out", made, -1)

    def matrix(self, read, of_kernel):
        of_groups = super().matrix(read, of_kernel)
        groups = self.op.groups
        if groups == 1:
            return of_groups
        # Between groups there are no weights.
        channels, filters = of_groups.shape[0], of_groups.shape[1] // groups
        full = np.zeros((channels * groups, filters * groups), of_groups.dtype)
        for g in range(groups):
            rows, columns = (
                slice(g * n, (g + 1) * n) for n in (channels, filters)
            )
            full[rows, columns] = of_groups[:, columns]
        return full

    def config(self, keep):
        return {"filters": int(keep(self.made).sum())}

    def crop(self, kernel):
        return dead_borders(self.op, kernel)

    def values(self, variable, value, keep):
        if self.op.groups == 1 or variable is not self.op.kernel:
            return None
        parts = [
            bank[..., keep(read), :][..., keep(made)]
            for bank, read, made in zip(
                np.split(value, self.op.groups, axis=-1),
                *self.banks,
                strict=True,
            )
        ]
        return np.concatenate(parts, axis=-1)


@structure_rule(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
class ConvTranspose(Conv):
    """Transposed convolution: its outputs differ in how many taps they have."""

    keeps_constants = False

    def kernels(self):
        return [(self.op.kernel, -1, -2)]

    def slices(self, tracer, read, made):
        Linear.slices(self, tracer, read, made)

    def matrix(self, read, of_kernel):
        return Linear.matrix(self, read, of_kernel)

    def crop(self, kernel):
        return None

    def values(self, variable, value, keep):
        return None


@structure_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class Separable(Conv):
    """A depthwise convolution and a 1x1 convolution of its results."""

    def slices(self, tracer, read, made):
        op = self.op
        tracer.slice(op.depthwise_kernel, "in", read, -2)
        tracer.slice(
            op.pointwise_kernel, "in", np.repeat(read, op.depth_multiplier), -2
        )
        tracer.slice(op.pointwise_kernel, "out", made, -1)
        tracer.slice(op.bias, "out", made, -1)

    def matrix(self, read, of_kernel):
        first = of_kernel(read(self.op.depthwise_kernel))
        second = of_kernel(read(self.op.pointwise_kernel))
        # [channel, multiplier] and [channel, multiplier, filter]; of truth
        # values, products and sums are "and" and "or".
        second = second.reshape(*first.shape, -1)
        return np.einsum("cm,cmo->co", first, second)

    def crop(self, kernel):
        return None

    def values(self, variable, value, keep):
        return None


@structure_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class Depthwise(Rule):
    """Each channel by itself: its results are the same unit."""

    def trace(self, tracer, inputs):
        op, rank = self.op, len(self.call.input_shapes[0])
        if inputs[0] is None or inputs[0].axis % rank != data_axis(op) % rank:
            return Unknown(self.call).trace(tracer, inputs)
        tracer.slice(op.kernel, "out", inputs[0].ids, -2)
        made = np.repeat(inputs[0].ids, op.depth_multiplier)
        tracer.slice(op.bias, "out", made, -1)
        return [Axis(inputs[0].axis, made)]

    def crop(self, kernel):
        return dead_borders(self.op, kernel)

    def constants(self, read, inputs):
        kernel = read(self.op.kernel)  # [*taps, channel, multiplier]
        constant = inputs[0][:, None]
        usable = ~np.isnan(constant)
        if self.op.padding != "valid" and self.exact:
            usable &= constant == 0
        values = np.where(usable, constant, 0.0) * sum_of_taps(kernel)
        values = np.where(usable | ~any_tap(kernel), values, np.nan).ravel()
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        return [activate(self.op.activation, values)]

    def needs(self, read, outputs, inputs, gone):
        nonzero = any_tap(read(self.op.kernel))
        return [(nonzero & outputs[0].reshape(nonzero.shape)).any(axis=1)]


@structure_rule(layers.Embedding)
class Embedding(Rule):
    """Rows of a table: makes units, reads numbers of words."""

    def trace(self, tracer, inputs):
        if inputs[0] is not None:
            tracer.elements.fix(inputs[0].ids, f"{self.op.name} reads indices")
        made = tracer.elements.new(
            self.op.output_dim, Space(self.op.name, "embedding", ("out",))
        )
        self.made = made
        tracer.slice(self.op._embeddings, "out", made, 1)
        return [Axis(-1, made)]

    def constants(self, read, inputs):
        table = read(self.op._embeddings)
        same = (table == table[:1]).all(axis=0)
        return [np.where(same, table[0], np.nan)]

    def needs(self, read, outputs, inputs, gone):
        return [np.ones(len(inputs[0]), bool)]

    def config(self, keep):
        return {"output_dim": int(keep(self.made).sum())}
