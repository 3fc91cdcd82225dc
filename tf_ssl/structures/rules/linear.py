"""Layers that multiply by a kernel."""

from __future__ import annotations

import re

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule, data_axis, structure_rule
from tf_ssl.structures.rules.product import activate, mixes
from tf_ssl.structures.units import Space


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


@structure_rule(layers.Dense)
class Dense(Rule):
    """y = f(x W + b) along the last axis; others pass by."""

    adds_bias = True

    def declare(self):
        layer = self.layer
        self.passes([a for a in self.inputs[0] if a != -1])
        self.multiplies(
            layer.kernel,
            {0: -1},
            {1: -1},
            bias=layer.bias,
            activation=layer.activation,
        )
        self.resizes(units=-1)


@structure_rule(layers.EinsumDense)
class EinsumDense(Rule):
    """An einsum with a kernel: letters say what is read, made and shared."""

    def declare(self):
        layer = self.layer
        given, kernel, made = re.split(",|->", layer.equation.replace(" ", ""))
        rank = len(self.call.input_shapes[0])
        out_rank = len(self.call.output_shapes[0])
        a, b = _axes_of(given, rank), _axes_of(made, out_rank)
        self.letters = b
        self.passes({a[x]: b[x] for x in a if x in b and x not in kernel})
        lost = {a[x] for x in a if x not in b and x not in kernel}
        self.stays("sums over them", lost)
        self.multiplies(
            layer.kernel,
            {i: a[x] for i, x in enumerate(kernel) if x in a and x not in b},
            {i: b[x] for i, x in enumerate(kernel) if x in b and x not in a},
            {i: a[x] for i, x in enumerate(kernel) if x in a and x in b},
            bias=layer.bias,
            bias_axes=None
            if layer.bias is None
            else {
                i: b[x]
                for i, x in enumerate(
                    sorted(layer.bias_axes, key=made.replace("...", "").index)
                )
            },
            activation=layer.activation,
        )

    def config(self, keep):
        shape = list(self.call.output_shapes[0])
        for axis, ids in self.outputs[0].items():
            shape[axis] = int(keep(ids).sum())
        # Keras' output_shape leaves out the batch; None stays None.
        before = self.layer.partial_output_shape
        count = len(before)
        return {
            "output_shape": tuple(
                None if old is None else new
                for old, new in zip(before, shape[-count:], strict=True)
            )
        }


def _axes_of(letters: str, rank: int) -> dict:
    """Letter -> axis from the end."""
    front, _, back = letters.partition("...")
    if "..." not in letters:
        front, back = "", letters
    found = {x: i - len(back) for i, x in enumerate(back)}
    found.update({x: i - rank for i, x in enumerate(front)})
    return found


class Convolution(Rule):
    """Kernels `[*taps, in, out]` along the axis of channels."""

    adds_bias = True
    kernel_axes = (-2, -1)

    @property
    def keeps_constants(self):
        """Zeros come in at the border unless the padding is valid."""
        op = self.op
        return op.padding == "valid" or max(op.kernel_size) == 1

    @property
    def channels(self) -> int:
        """The axis of channels, from the end."""
        return data_axis(self.op, len(self.call.input_shapes[0]))

    def pass_places(self):
        """Other axes pass a 1x1 kernel; any other mixes what is there."""
        op = self.op
        others = [a for a in self.inputs[0] if a != self.channels]
        is_point = (
            all(n == 1 for n in (*op.kernel_size, *op.strides))
            and self.call.input_shapes[0][1:-1] is not None
        )
        if is_point:
            self.passes(others)
        else:
            self.stays("mixes its places", others)

    def declare(self):
        op, axis = self.op, self.channels
        self.pass_places()
        self.multiplies(
            op.kernel,
            {self.kernel_axes[0]: axis},
            {self.kernel_axes[1]: axis},
            bias=op.bias,
            bias_axes={0: axis},
            activation=op.activation,
            kind="filters",
            keeps_constants=self.keeps_constants,
        )
        self.resizes(filters=axis)

    def crop(self, kernel):
        return dead_borders(self.op, kernel)


@structure_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Conv(Convolution):
    """Convolution; in one with groups units are the same in all groups.

    Groups stay equal if the j-th channel and the j-th filter of each go
    together; where there are more groups than filters of one, whole groups go.
    """

    def declare(self):
        if self.op.groups == 1:
            return super().declare()
        op, axis, groups = self.op, self.channels, self.op.groups
        self.pass_places()
        if axis not in self.inputs[0]:
            self.inputs[0] = {**self.inputs[0], axis: _fixed(self, axis)}
        read = self.inputs[0][axis].reshape(groups, -1)
        channels, filters = read.shape[1], op.filters // groups
        union = self.tracer.elements.union
        self.per_channel = channels == 1
        if self.per_channel:  # a depthwise convolution by another name
            made = np.repeat(read[:, 0], filters)
        else:
            made = self.tracer.elements.new(
                op.filters, Space(self.name, "filters")
            )
        of_group = made.reshape(groups, filters)
        self.whole_groups = not self.per_channel and groups > filters
        if self.whole_groups:
            for row in (read, of_group):
                union(np.broadcast_to(row[:, :1], row.shape), row)
            union(read[:, 0], of_group[:, 0])
        elif not self.per_channel:
            for row in (read, of_group):
                union(np.broadcast_to(row[:1], row.shape), row)
        self.read, self.made = read, of_group
        self.outputs[0][axis] = made
        # [channel of a group, filter]
        table = np.repeat(read.T, filters, axis=1)
        shape = [1] * (len(op.kernel.shape) - 2) + list(table.shape)
        if not self.per_channel:
            self.tracer.slice(op.kernel, "in", table.reshape(shape))
        self.tracer.slice(op.kernel, "out", made, -1)
        self.tracer.slice(op.bias, "out", made, -1)
        if mixes(op.activation):
            self.tracer.elements.fix(made, f"{self.name} has a softmax")
        self.axis = axis

    def _matrix(self, read, of_kernel):
        """`[in, out]` of all channels and filters."""
        of_groups = of_kernel(read(self.op.kernel))
        groups = self.op.groups
        channels, filters = of_groups.shape[0], of_groups.shape[1] // groups
        full = np.zeros((channels * groups, filters * groups), of_groups.dtype)
        for g in range(groups):
            rows, columns = (
                slice(g * n, (g + 1) * n) for n in (channels, filters)
            )
            full[rows, columns] = of_groups[:, columns]
        return full

    def _usable(self, values):
        known = ~np.isnan(values)
        if self.keeps_constants or not self.exact:
            return known
        return known & (values == 0)

    def constants(self, read, inputs):
        if self.op.groups == 1:
            return super().constants(read, inputs)
        found = super().constants(read, inputs)  # of axes that pass
        given = inputs[0].get(self.axis)
        if given is None:
            given = np.full(self.read.size, np.nan)
        usable = self._usable(given)
        is_constant = ~self._matrix(read, any_tap)[~usable].any(axis=0)
        values = np.where(usable, given, 0) @ self._matrix(read, sum_of_taps)
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        values = np.where(is_constant, values, np.nan)
        found[0][self.axis] = activate(self.op.activation, values)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if self.op.groups > 1 and self.axis in found[0]:
            live = wanted[0][self.axis]
            if not self.per_channel:
                live = live & ~gone[0][self.axis]
            nonzero = self._matrix(read, any_tap)
            found[0][self.axis] |= nonzero[:, live].any(axis=1)
        return found

    def read_axes(self, index):
        if self.op.groups == 1:
            return super().read_axes(index)
        return () if self.per_channel else (self.axis,)

    def foldable(self, read, constants, index):
        if self.op.groups == 1:
            return super().foldable(read, constants, index)
        return {self.axis: self._usable(constants[self.axis])}

    def folds(self, read, constants, index):
        if self.op.groups == 1:
            return super().folds(read, constants, index)
        sums = self._matrix(read, sum_of_taps)
        return [(self.op.bias, constants[self.axis] @ sums)]

    def bias_units(self):
        if self.op.groups == 1:
            return super().bias_units()
        return self.made.ravel()

    def config(self, keep):
        if self.op.groups == 1:
            return super().config(keep)
        sizes = {"filters": int(keep(self.made).sum())}
        if self.whole_groups or self.per_channel:
            sizes["groups"] = int(keep(self.read[:, 0]).sum())
        return sizes

    def values(self, variable, value, keep):
        if self.op.groups == 1 or variable is not self.op.kernel:
            return None
        parts = []
        for bank, read, made in zip(
            np.split(value, self.op.groups, axis=-1),
            self.read,
            self.made,
            strict=True,
        ):
            part = bank[..., keep(read), :][..., keep(made)]
            if part.shape[-1]:
                parts.append(part)
        return np.concatenate(parts, axis=-1)


def _fixed(rule, axis):
    """Elements of an axis that nothing follows."""
    name = rule.name
    size = rule.call.input_shapes[0][axis]
    ids = rule.tracer.elements.new(size, Space(name, "fixed"))
    rule.tracer.elements.fix(ids, f"{name} reads an axis of places")
    return ids


@structure_rule(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
class ConvTranspose(Convolution):
    """Transposed convolution: its outputs differ in how many taps they have."""

    keeps_constants = False
    kernel_axes = (-1, -2)

    def crop(self, kernel):
        return None


@structure_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class Separable(Convolution):
    """A depthwise convolution and a 1x1 convolution of its results."""

    def declare(self):
        op, axis = self.op, self.channels
        self.pass_places()
        if axis not in self.inputs[0]:
            self.inputs[0] = {**self.inputs[0], axis: _fixed(self, axis)}
        read = self.inputs[0][axis]
        self.tracer.slice(op.depthwise_kernel, "in", read, -2)
        self.tracer.slice(
            op.pointwise_kernel, "in", np.repeat(read, op.depth_multiplier), -2
        )
        self.made = self.tracer.elements.new(
            op.filters, Space(self.name, "filters")
        )
        self.tracer.slice(op.pointwise_kernel, "out", self.made, -1)
        self.tracer.slice(op.bias, "out", self.made, -1)
        self.outputs[0][axis] = self.made
        self.resizes(filters=axis)

    def _matrix(self, read, of_kernel):
        first = of_kernel(read(self.op.depthwise_kernel))
        second = of_kernel(read(self.op.pointwise_kernel))
        # [channel, multiplier] and [channel, multiplier, filter]; of truth
        # values, products and sums are "and" and "or".
        second = second.reshape(*first.shape, -1)
        return np.einsum("cm,cmo->co", first, second)

    def _usable(self, values):
        known = ~np.isnan(values)
        if self.keeps_constants or not self.exact:
            return known
        return known & (values == 0)

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        given = inputs[0].get(self.channels)
        if given is None:
            given = np.full(len(self._matrix(read, any_tap)), np.nan)
        usable = self._usable(given)
        is_constant = ~self._matrix(read, any_tap)[~usable].any(axis=0)
        values = np.where(usable, given, 0) @ self._matrix(read, sum_of_taps)
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        values = np.where(is_constant, values, np.nan)
        found[0][self.channels] = activate(self.op.activation, values)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        axis = self.channels
        if axis in found[0]:
            live = wanted[0][axis] & ~gone[0][axis]
            nonzero = self._matrix(read, any_tap)
            found[0][axis] |= nonzero[:, live].any(axis=1)
        return found

    def read_axes(self, index):
        return (self.channels,)

    def foldable(self, read, constants, index):
        return {self.channels: self._usable(constants[self.channels])}

    def folds(self, read, constants, index):
        sums = self._matrix(read, sum_of_taps)
        return [(self.op.bias, constants[self.channels] @ sums)]

    def bias_units(self):
        return self.made

    def crop(self, kernel):
        return None


@structure_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class Depthwise(Convolution):
    """Each channel by itself: its results are the same unit."""

    def declare(self):
        op, axis = self.op, self.channels
        self.pass_places()
        ids = self.inputs[0].get(axis)
        if ids is None:
            ids = _fixed(self, axis)
        self.tracer.slice(op.kernel, "out", ids, -2)
        made = np.repeat(ids, op.depth_multiplier)
        self.tracer.slice(op.bias, "out", made, -1)
        self.outputs[0][axis] = made

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        kernel = read(self.op.kernel)  # [*taps, channel, multiplier]
        given = inputs[0].get(self.channels)
        if given is None:
            given = np.full(kernel.shape[-2], np.nan)
        constant = given[:, None]
        usable = ~np.isnan(constant)
        if self.op.padding != "valid" and self.exact:
            usable &= constant == 0
        values = np.where(usable, constant, 0.0) * sum_of_taps(kernel)
        values = np.where(usable | ~any_tap(kernel), values, np.nan).ravel()
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        found[0][self.channels] = activate(self.op.activation, values)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if self.channels in found[0]:
            nonzero = any_tap(read(self.op.kernel))
            live = wanted[0][self.channels].reshape(nonzero.shape)
            found[0][self.channels] |= (nonzero & live).any(axis=1)
        return found


@structure_rule(layers.Embedding)
class Embedding(Rule):
    """Rows of a table: makes units, reads numbers of words."""

    def declare(self):
        self.stays("reads indices")
        table = self.table
        self.made = self.tracer.elements.new(
            table.shape[1], Space(self.name, "embedding")
        )
        self.tracer.slice(table, "out", self.made, 1)
        self.outputs[0][-1] = self.made
        self.resizes(output_dim=-1)

    @property
    def table(self):
        """The variable `[words, features]`."""
        return self.op._embeddings

    def constants(self, read, inputs):
        table = read(self.table)
        same = (table == table[:1]).all(axis=0)
        return [{-1: np.where(same, table[0], np.nan)}]


class ReversibleEmbedding(Embedding):
    """A feature is one column of the table, for words and for logits.

    So the units that the logits read are those that the embedding makes.
    """

    def __init__(self, call):
        super().__init__(call)
        self.is_reverse = bool(call.arguments.get("reverse"))

    @property
    def reader(self):
        """(variable, axis of its features) that makes logits."""
        if getattr(self.op, "tie_weights", True):
            return self.table, 1
        return self.op.reverse_embeddings, 0

    def declare(self):
        if not self.is_reverse:
            return super().declare()
        self.stays(
            "makes logits of them", [a for a in self.inputs[0] if a != -1]
        )
        if -1 not in self.inputs[0]:
            self.inputs[0] = {**self.inputs[0], -1: _fixed(self, -1)}
        self.made = self.inputs[0][-1]
        variable, axis = self.reader
        if variable is self.table:
            # Beside the slice of the embedding's call: the same units.
            self.tracer.slice(variable, "out", self.made, axis)
        self.tracer.slice(variable, "in", self.made, axis)
        self.fresh(0, -1, f"{self.name} makes logits")

    def constants(self, read, inputs):
        if not self.is_reverse:
            return super().constants(read, inputs)
        return [{}]

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if self.is_reverse:
            variable, axis = self.reader
            found[0][-1] = (read(variable) != 0).any(axis=1 - axis)
        return found

    def read_axes(self, index):
        return (-1,) if self.is_reverse else ()

    def foldable(self, read, constants, index):
        has_bias = getattr(self.op, "bias", None) is not None
        known = ~np.isnan(constants[-1])
        return {-1: known if has_bias else constants[-1] == 0}

    def folds(self, read, constants, index):
        variable, axis = self.reader
        table = np.moveaxis(read(variable).astype(np.float64), axis, -1)
        return [(getattr(self.op, "bias", None), table @ constants[-1])]

    def config(self, keep):
        return {"output_dim": int(keep(self.made).sum())}


if hasattr(layers, "ReversibleEmbedding"):
    structure_rule(layers.ReversibleEmbedding)(ReversibleEmbedding)
