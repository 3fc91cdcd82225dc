"""Convolutions of which a filter sees some channels only.

They are a matrix `[channels, filters]` summed over taps, zero where a filter
does not see a channel.
"""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.kernels.activations import (
    activate,
    before_activation,
    follow_activation,
    is_linear,
)
from tf_ssl.structures.rules.kernels.linear import Convolution
from tf_ssl.structures.rules.table import structure_rule
from tf_ssl.structures.units import Space


def any_tap(kernel: np.ndarray) -> np.ndarray:
    """Whether a weight of any tap is not zero: `[*taps, a, b]` to `[a, b]`."""
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))


def sum_of_taps(kernel: np.ndarray) -> np.ndarray:
    """Sum over taps in float64: `[*taps, a, b]` to `[a, b]`."""
    return kernel.sum(axis=tuple(range(kernel.ndim - 2)), dtype=np.float64)


class ByMatrix(Convolution):
    """A convolution of which `matrix` says which filter sees which channel."""

    def matrix(self, read, of_kernel) -> np.ndarray:
        """`[channels, filters]`.

        Args:
            read: Function from a variable to its value.
            of_kernel: `any_tap` or `sum_of_taps`.
        """
        raise NotImplementedError

    def _usable(self, values):
        known = ~np.isnan(values)
        if self.keeps_constants or not self.exact:
            return known
        return known & (values == 0)

    def constants(self, read, inputs):
        found = super().constants(read, inputs)  # of axes that pass
        axis, seen = self.channels, self.matrix(read, any_tap)
        given = inputs[0].get(axis, np.full(len(seen), np.nan))
        usable = self._usable(given)
        values = np.where(usable, given, 0) @ self.matrix(read, sum_of_taps)
        if self.op.bias is not None:
            values = values + read(self.op.bias)
        values = np.where(seen[~usable].any(axis=0), np.nan, values)
        found[0][axis] = activate(self.op.activation, values, read)
        return found

    def needs(self, read, wanted, inputs, gone):
        found, axis = super().needs(read, wanted, inputs, gone), self.channels
        if axis in found[0]:
            live = before_activation(self, self.op.activation, wanted[0][axis])
            live = self.needed_filters(live, gone[0][axis])
            found[0][axis] = self.matrix(read, any_tap)[:, live].any(axis=1)
        return found

    def needed_filters(self, wanted, gone):
        """Filters for which their channels are needed."""
        return wanted & ~gone

    def read_axes(self, index):
        return (self.channels,)

    def foldable(self, read, constants, index):
        return {self.channels: self._usable(constants[self.channels])}

    def folds(self, read, constants, index):
        sums = self.matrix(read, sum_of_taps)
        return [(self.op.bias, constants[self.channels] @ sums)]

    def shifts(self):
        return self.channels if is_linear(self.op.activation) else None

    def bias_units(self):
        return self.outputs[0][self.channels]


@structure_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(call):
    """The rule of one with or without groups."""
    return (Convolution if call.op.groups == 1 else Grouped)(call)


class Grouped(ByMatrix):
    """Units are the same in all groups.

    Groups stay equal if the j-th channel and the j-th filter of each go
    together; where there are more groups than filters of one, whole groups go.
    """

    def declare(self):
        op, axis, groups = self.op, self.channels, self.op.groups
        self.pass_places()
        read = self.follow(axis).reshape(groups, -1)
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
        follow_activation(self, op.activation)

    def matrix(self, read, of_kernel):
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

    def needed_filters(self, wanted, gone):
        # A channel that is its filters goes with them only if none is needed.
        return wanted if self.per_channel else wanted & ~gone

    def read_axes(self, index):
        return () if self.per_channel else (self.channels,)

    def config(self, keep):
        sizes = {"filters": int(keep(self.made).sum())}
        if self.whole_groups or self.per_channel:
            sizes["groups"] = int(keep(self.read[:, 0]).sum())
        return sizes

    def values(self, variable, value, keep):
        if variable is not self.op.kernel:
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


@structure_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class Separable(ByMatrix):
    """A depthwise convolution and a 1x1 convolution of its results."""

    def crop(self, kernel):
        return None

    def declare(self):
        op, axis = self.op, self.channels
        self.pass_places()
        read = self.follow(axis)
        self.tracer.slice(op.depthwise_kernel, "in", read, -2)
        self.tracer.slice(
            op.pointwise_kernel, "in", np.repeat(read, op.depth_multiplier), -2
        )
        made = self.tracer.elements.new(op.filters, Space(self.name, "filters"))
        self.tracer.slice(op.pointwise_kernel, "out", made, -1)
        self.tracer.slice(op.bias, "out", made, -1)
        self.outputs[0][axis] = made
        self.resizes(filters=axis)
        follow_activation(self, op.activation)

    def matrix(self, read, of_kernel):
        first = of_kernel(read(self.op.depthwise_kernel))
        second = of_kernel(read(self.op.pointwise_kernel))
        # [channel, multiplier] and [channel, multiplier, filter]; of truth
        # values, products and sums are "and" and "or".
        second = second.reshape(*first.shape, -1)
        return np.einsum("cm,cmo->co", first, second)


@structure_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class Depthwise(ByMatrix):
    """Each channel by itself: its results are the same unit."""

    def declare(self):
        op, axis = self.op, self.channels
        self.pass_places()
        ids = self.follow(axis)
        self.tracer.slice(op.kernel, "out", ids, -2)
        made = np.repeat(ids, op.depth_multiplier)
        self.tracer.slice(op.bias, "out", made, -1)
        self.outputs[0][axis] = made
        follow_activation(self, op.activation)

    def matrix(self, read, of_kernel):
        kernel = of_kernel(read(self.op.kernel))  # [channel, multiplier]
        channels, multiplier = kernel.shape
        full = np.zeros((channels, channels, multiplier), kernel.dtype)
        full[np.arange(channels), np.arange(channels)] = kernel
        return full.reshape(channels, -1)

    def needed_filters(self, wanted, gone):
        return wanted

    def read_axes(self, index):
        return ()

    def config(self, keep):
        return {}
