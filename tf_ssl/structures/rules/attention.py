"""Attention layers: whole heads can go."""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import Unknown, structure_rule
from tf_ssl.structures.units import Space


def has_heads(scores) -> bool:
    """Whether a mask or a bias of scores differs from head to head.

    Args:
        scores: `[batch, heads, queries, keys]` or fewer axes; or None.
    """
    shape = getattr(scores, "shape", ())
    return len(shape) > 3 and shape[-3] != 1


@structure_rule(layers.MultiHeadAttention)
class MultiHeadAttention(Rule):
    """Heads are units of their own, made by query, key and value."""

    def declare(self):
        op, arguments = self.op, self.call.arguments
        query, value = arguments["query"], arguments["value"]
        key = arguments.get("key")
        key = value if key is None else key
        index = self.call.index
        # Projection -> index of the input that it reads.
        self.projections = [
            (op._query_dense, index(query)),
            (op._value_dense, index(value)),
            (op._key_dense, index(key)),
        ]
        if getattr(op, "use_gate", getattr(op, "_use_gate", False)):
            self.projections.append((op._gate_dense, index(query)))
        for i, axes in enumerate(self.inputs):
            self.stays("attends over them", [a for a in axes if a != -1], i)
        if len(op._output_dense.kernel.shape) != 3 or any(
            i is None for _, i in self.projections
        ):
            self.usable = False
            self.refuse(f"{self.name} makes several axes")
            return
        self.usable = True
        for _, i in self.projections:
            self.follow(-1, i)
        self.make_heads()
        for dense, i in self.projections:
            self.tracer.slice(dense._kernel, "in", self.inputs[i][-1], 0)
            heads = self.heads_of(dense)
            self.tracer.slice(dense._kernel, "out", heads, 1)
            self.tracer.slice(dense.bias, "out", heads, 0)
        output = op._output_dense
        self.tracer.slice(output._kernel, "in", self.query_heads, 0)
        self.made = self.make_outputs(output)
        self.tracer.slice(output._kernel, "out", self.made, -1)
        self.tracer.slice(output.bias, "out", self.made, -1)
        self.outputs[0][-1] = self.made
        if len(self.call.outputs) > 1:
            self.tracer.elements.fix(
                self.query_heads, f"{self.name} returns attention scores"
            )
        if has_heads(arguments.get("attention_mask")):
            self.tracer.elements.fix(
                self.query_heads, f"{self.name} has a mask for each head"
            )

    def make_heads(self):
        """Elements of the heads."""
        op = self.op
        self.query_heads = self.tracer.elements.new(
            op.num_heads, Space(self.name, "heads")
        )

    def heads_of(self, dense):
        """Elements of the heads that a projection makes."""
        return self.query_heads

    def make_outputs(self, output):
        """Elements of the result."""
        return self.tracer.elements.new(
            output._kernel.shape[-1], Space(self.name, "units")
        )

    def dead_heads(self, read) -> np.ndarray:
        """Heads that are not read, or whose values are zero."""
        value, _ = self.projections[1]
        read_by = np.any(read(self.op._output_dense._kernel) != 0, axis=(1, 2))
        zero = ~np.any(read(value._kernel) != 0, axis=(0, 2))
        if value.bias is not None:
            zero &= ~np.any(read(value.bias) != 0, axis=1)
        return ~read_by | self.repeated(value, zero)

    def repeated(self, dense, of_heads):
        """What is known of a projection's heads, for each head of queries."""
        return of_heads

    def constants(self, read, inputs):
        if not self.usable:
            return super().constants(read, inputs)
        kernel = read(self.op._output_dense._kernel)
        live = ~self.dead_heads(read)
        nothing = ~np.any(kernel[live] != 0, axis=(0, 1))
        bias = self.op._output_dense.bias
        value = 0.0 if bias is None else read(bias)
        found = [{} for _ in self.call.outputs]
        found[0][-1] = np.where(nothing, value, np.nan)
        return found

    def needs(self, read, wanted, inputs, gone):
        if not self.usable:
            return Unknown.needs(self, read, wanted, inputs, gone)
        found = [
            {axis: np.ones(len(v), bool) for axis, v in one.items()}
            for one in inputs
        ]
        for one in found:
            if -1 in one:
                one[-1][:] = False
        made = wanted[0][-1] & ~gone[0][-1]
        kernel = read(self.op._output_dense._kernel)[..., made]
        live = ~self.dead_heads(read) & np.any(kernel != 0, axis=(1, 2))
        for dense, i in self.projections:
            weights = read(dense._kernel)[:, self.read_heads(dense, live)]
            if -1 in found[i]:
                found[i][-1] |= np.any(weights != 0, axis=(1, 2))
        return found

    def read_heads(self, dense, live):
        """Heads of a projection that live heads of queries use."""
        return live

    def read_axes(self, index):
        if not self.usable:
            return ()
        return (-1,) if any(i == index for _, i in self.projections) else ()

    def reading(self):
        return tuple(i for _, i in self.projections)

    def foldable(self, read, constants, index):
        with_bias = all(
            dense.bias is not None
            for dense, i in self.projections
            if i == index
        )
        values = constants[-1]
        return {-1: ~np.isnan(values) if with_bias else values == 0}

    def folds(self, read, constants, index):
        """(bias, delta) of each projection of an input."""
        return [
            (
                dense.bias,
                np.einsum("d,dhk->hk", constants[-1], read(dense._kernel)),
            )
            for dense, i in self.projections
            if i == index
        ]

    def inner_dead(self, read, wanted, gone):
        if not self.usable:
            return []
        return [(self.query_heads, self.dead_heads(read))]

    def config(self, keep):
        if not self.usable:
            return {}
        return {
            "num_heads": int(keep(self.query_heads).sum()),
            "output_shape": int(keep(self.made).sum()),
        }


@structure_rule(layers.GroupQueryAttention)
class GroupQueryAttention(MultiHeadAttention):
    """A unit is one head of keys and values, with all its queries' heads."""

    def make_heads(self):
        op = self.op
        self.heads = self.tracer.elements.new(
            op.num_key_value_heads, Space(self.name, "heads")
        )
        self.query_heads = np.repeat(self.heads, op.num_repeats)

    def heads_of(self, dense):
        op = self.op
        return (
            self.heads
            if dense in (op._key_dense, op._value_dense)
            else self.query_heads
        )

    def make_outputs(self, output):
        # As wide as the queries, whatever the config says; and Keras' shape
        # inference takes values to be so, too.
        (_, query), (_, value) = self.projections[:2]
        made = self.inputs[query][-1]
        if len(made) == len(self.inputs[value][-1]):
            self.tracer.elements.union(made, self.inputs[value][-1])
        return made

    def repeated(self, dense, of_heads):
        return np.repeat(of_heads, self.op.num_repeats)

    def read_heads(self, dense, live):
        if self.heads_of(dense) is self.query_heads:
            return live
        return live.reshape(-1, self.op.num_repeats).any(axis=1)

    def config(self, keep):
        if not self.usable:
            return {}
        return {
            "num_query_heads": int(keep(self.query_heads).sum()),
            "num_key_value_heads": int(keep(self.heads).sum()),
        }


@structure_rule(layers.Attention, layers.AdditiveAttention)
class Attention(Rule):
    """Features of values pass; those of queries and keys meet each other."""

    def declare(self):
        arguments = self.call.arguments["inputs"]
        query, value = arguments[0], arguments[1]
        key = arguments[2] if len(arguments) > 2 else value
        self.ends = [self.call.index(x) for x in (query, value, key)]
        q, v, k = self.ends
        for i, axes in enumerate(self.inputs):
            self.stays("attends over them", [a for a in axes if a != -1], i)
        is_dot = not isinstance(self.op, layers.AdditiveAttention)
        self.plain = (
            is_dot
            and self.op.score_mode == "dot"
            and all(-1 in self.inputs[i] for i in self.ends)
        )
        if not self.plain:
            for i in {q, k}:
                self.stays("scores with them", [-1], i)
        else:
            self.tracer.elements.union(self.inputs[q][-1], self.inputs[k][-1])
        self.passes([-1], source=v)
        for scores in self.outputs[1:]:
            scores.clear()

    def constants(self, read, inputs):
        found = [{} for _ in self.call.outputs]
        if -1 in self.outputs[0]:
            # Weights add up to 1; all masked, they are as good as any.
            found[0][-1] = inputs[self.ends[1]][-1]
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        q, _, k = self.ends
        if self.plain:
            zero = (inputs[q][-1] == 0) | (inputs[k][-1] == 0)
            for i in {q, k}:
                found[i][-1] |= ~zero
        return found

    def read_axes(self, index):
        q, _, k = self.ends
        return (-1,) if self.plain and index in (q, k) else ()

    def foldable(self, read, constants, index):
        return {-1: constants[-1] == 0}

    def folds(self, read, constants, index):
        return []
