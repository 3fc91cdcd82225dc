"""Layers that multiply by a kernel."""

from __future__ import annotations

import re

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule, data_axis
from tf_ssl.structures.rules.table import structure_rule


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
        for part in (given, kernel, made):
            if len(set(part.replace("...", ""))) < len(part.replace("...", "")):
                self.refuse(f"{self.name} repeats a letter")
                return
        rank = len(self.call.input_shapes[0])
        out_rank = len(self.call.output_shapes[0])
        a, b = _axes_of(given, rank), _axes_of(made, out_rank)
        self.passes({a[x]: b[x] for x in a if x in b and x not in kernel})
        lost = {a[x] for x in a if x not in b and x not in kernel}
        self.stays("sums over them", lost)
        self.multiplies(
            layer.kernel,
            {i: a[x] for i, x in enumerate(kernel) if x in a and x not in b},
            {i: b[x] for i, x in enumerate(kernel) if x in b and x not in a},
            {i: a[x] for i, x in enumerate(kernel) if x in a and x in b},
            bias=layer.bias,
            bias_axes=self._bias_axes(made, out_rank),
            activation=layer.activation,
        )

    def _bias_axes(self, made, rank):
        """A bias lies along the last axes, 1 long where it does not differ."""
        letters, bias = self.layer.bias_axes, self.layer.bias
        if bias is None:
            return None
        axes = _axes_of(made, rank)
        return {
            axis: axis
            for x, axis in axes.items()
            if x in letters and -axis <= len(bias.shape)
        }

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
        if all(n == 1 for n in (*op.kernel_size, *op.strides)):
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


@structure_rule(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
class ConvTranspose(Convolution):
    """Transposed convolution: its outputs differ in how many taps they have."""

    keeps_constants = False
    kernel_axes = (-1, -2)

    def crop(self, kernel):
        return None
