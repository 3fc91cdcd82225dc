"""Attention: whole heads can go."""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule, Unknown, structure_rule
from tf_ssl.structures.units import Axis, Space


@structure_rule(layers.MultiHeadAttention)
class MultiHeadAttention(Rule):
    """Heads are units of their own, made by query, key and value."""

    is_reader = True

    def trace(self, tracer, inputs):
        op = self.op
        if (
            any(axis is None or axis.axis != -1 for axis in inputs)
            or len(inputs) > 3
        ):
            return Unknown(self.call).trace(tracer, inputs)
        self.projections = [op._query_dense, op._value_dense, op._key_dense]
        heads = tracer.elements.new(
            op.num_heads, Space(op.name, "heads", ("out",))
        )
        self.heads = heads
        # Two tensors: the value is also the key.
        sources = [inputs[0], inputs[1], inputs[-1]]
        self.source = [0, 1, len(inputs) - 1]
        for dense, axis in zip(self.projections, sources, strict=True):
            tracer.slice(dense._kernel, "in", axis.ids, 0)
            tracer.slice(dense._kernel, "out", heads, 1)
            tracer.slice(dense.bias, "out", heads, 0)
        output = op._output_dense
        size = self.call.output_shapes[0][-1]
        made = tracer.elements.new(size, Space(op.name, "units", ("out",)))
        tracer.slice(output._kernel, "in", heads, 0)
        tracer.slice(output._kernel, "out", made, -1)
        tracer.slice(output.bias, "out", made, -1)
        self.made = made
        scores = self.call.outputs[1:]
        if scores:
            tracer.elements.fix(heads, f"{op.name} returns attention scores")
        return [Axis(-1, made), *(None for _ in scores)]

    def dead_heads(self, read) -> np.ndarray:
        """Heads that are not read, or whose values are zero."""
        value = self.projections[1]
        read_by = np.any(read(self.op._output_dense._kernel) != 0, axis=(1, 2))
        zero = ~np.any(read(value._kernel) != 0, axis=(0, 2))
        if value.bias is not None:
            zero &= ~np.any(read(value.bias) != 0, axis=1)
        return ~read_by | zero

    def constants(self, read, inputs):
        kernel = read(self.op._output_dense._kernel)
        live = ~self.dead_heads(read)
        nothing = ~np.any(kernel[live] != 0, axis=(0, 1))
        bias = self.op._output_dense.bias
        value = 0.0 if bias is None else read(bias)
        made = np.where(nothing, value, np.nan)
        return [made, *(np.zeros(0) for _ in self.call.outputs[1:])]

    def needs(self, read, outputs, inputs, gone):
        kernel = read(self.op._output_dense._kernel)[..., outputs[0] & ~gone[0]]
        live = ~self.dead_heads(read) & np.any(kernel != 0, axis=(1, 2))
        needs = [np.zeros(len(x), bool) for x in inputs]
        for dense, source in zip(self.projections, self.source, strict=True):
            used = np.any(read(dense._kernel)[:, live] != 0, axis=(1, 2))
            needs[source] |= used
        return needs

    def foldable(self, read, constants, index):
        with_bias = all(
            dense.bias is not None
            for dense, source in zip(self.projections, self.source, strict=True)
            if source == index
        )
        return ~np.isnan(constants) if with_bias else constants == 0

    def folds(self, read, constants, index):
        """(bias, delta) of each projection of an input."""
        return [
            (dense.bias, np.einsum("d,dhk->hk", constants, read(dense._kernel)))
            for dense, source in zip(self.projections, self.source, strict=True)
            if source == index
        ]

    def inner_dead(self, read, outputs, gone):
        return [(self.heads, self.dead_heads(read))]

    def config(self, keep):
        return {
            "num_heads": int(keep(self.heads).sum()),
            "output_shape": int(keep(self.made).sum()),
        }
