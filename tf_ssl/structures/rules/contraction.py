"""Products of two tensors that both flow: attention written in keras.ops."""

from __future__ import annotations

import re
import string

import numpy as np
from keras import layers

from tf_ssl.structures.rules.attention import has_heads
from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import structure_rule


class Contraction(Rule):
    """A sum over what two tensors share; each reads the other.

    What is summed over is one unit of both: a zero in either adds nothing.
    """

    def letters(self) -> tuple[str, str, str] | None:
        """Of the axes of both factors and of the result; None: not known."""
        raise NotImplementedError

    def declare(self):
        self.summed = []
        letters = self.letters() if len(self.call.inputs) == 2 else None
        if letters is None:
            self.refuse(f"{self.name} is no product of two tensors")
            return
        first, second, made = letters
        axes = [
            {x: i - len(names) for i, x in enumerate(names)}
            for names in (first, second)
        ]
        out = {x: i - len(made) for i, x in enumerate(made)}
        for x in dict.fromkeys(first + second):
            own = [
                (i, axes[i][x])
                for i in range(2)
                if x in axes[i] and axes[i][x] in self.inputs[i]
            ]
            sizes = {
                self.call.input_shapes[i][axes[i][x]]
                for i in range(2)
                if x in axes[i]
            }
            if x in out:
                self._keeps(x, own, axes, out[x], sizes)
            elif x in first and x in second:
                self._sums(x, own, axes)
            else:
                for i, axis in own:
                    self.stays("sums over them", [axis], source=i)

    def _keeps(self, x, own, axes, out_axis, sizes):
        both = x in axes[0] and x in axes[1]
        if both and len(own) == 1 and len(sizes) == 1:
            i, axis = own[0]
            self.stays("meets what is not followed", [axis], source=i)
        for i, axis in own:
            # 1 beside n is spread.
            if len(self.inputs[i][axis]) == 1 and len(sizes) > 1:
                self.stays("spreads it over all units", [axis], source=i)
                continue
            self.passes({axis: out_axis}, source=i)

    def _sums(self, x, own, axes):
        if len(own) == 2:
            (i, a), (j, b) = own
            self.tracer.elements.union(self.inputs[i][a], self.inputs[j][b])
            self.summed.append((a, b))
        else:
            for i, axis in own:
                self.stays("sums over them", [axis], source=i)

    def constants(self, read, inputs):
        # Along an axis that only passes: a sum of zeros is zero.
        found = [
            {axis: np.full(len(ids), np.nan) for axis, ids in output.items()}
            for output in self.outputs
        ]
        for source, a, b, _ in self._passes:
            values = inputs[source].get(a)
            if values is not None and b in found[0]:
                zero = (values == 0) | (found[0][b] == 0)
                found[0][b] = np.where(zero, 0.0, np.nan)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        for a, b in self.summed:
            found[0][a] |= inputs[1][b] != 0
            found[1][b] |= inputs[0][a] != 0
        return found

    def read_axes(self, index):
        return tuple(pair[index] for pair in self.summed)

    def foldable(self, read, constants, index):
        return {a: constants[a] == 0 for a in self.read_axes(index)}

    def folds(self, read, constants, index):
        return []


@structure_rule("Einsum")
class Einsum(Contraction):
    """keras.ops.einsum of two tensors."""

    def letters(self):
        parts = re.split(",|->", self.op.subscripts.replace(" ", ""))
        if len(parts) != 3 or "->" not in self.op.subscripts:
            return None
        if any(
            len(set(x)) < len(x) for x in (p.replace("...", "") for p in parts)
        ):
            return None  # a diagonal
        ranks = [len(s) for s in self.call.input_shapes]
        ranks.append(len(self.call.output_shapes[0]))
        unused = [x for x in string.ascii_uppercase if x not in "".join(parts)]
        full = []
        for part, rank in zip(parts, ranks, strict=True):
            front, dots, back = part.partition("...")
            count = rank - len(front) - len(back)
            middle = "".join(unused[:8][8 - count :]) if dots else ""
            full.append(front + middle + back)
        return tuple(full)


@structure_rule("Matmul")
class Matmul(Contraction):
    """keras.ops.matmul: the last axis with the one before it."""

    def letters(self):
        first, second = self.call.input_shapes
        front = string.ascii_uppercase
        a, b = len(first) - 2, len(second) - 2
        if min(a, b) < 0:
            return None
        most = max(a, b)
        return (
            front[most - a : most] + "ij",
            front[most - b : most] + "jk",
            front[:most] + "ik",
        )


@structure_rule(layers.Dot)
class Dot(Contraction):
    """A layer: the sum over one axis of each."""

    def letters(self):
        first, second = self.call.input_shapes
        axes = self.op.axes
        if isinstance(axes, int):
            axes = [axes, axes]
        a, b = axes[0] % len(first), axes[1] % len(second)
        names = iter(string.ascii_lowercase[2:])
        one = ["b" if i == 0 else next(names) for i in range(len(first))]
        two = ["b" if i == 0 else next(names) for i in range(len(second))]
        one[a] = two[b] = "a"
        made = [x for x in one if x != "a"]
        made += [x for x in two if x not in ("a", "b")]
        shape = self.call.output_shapes[0]
        if len(made) < len(shape):
            made += [next(names)] * (len(shape) - len(made))
        return "".join(one), "".join(two), "".join(made)

    def declare(self):
        if self.op.normalize:
            self.summed = []
            self.refuse(f"{self.name} normalizes them")
            return
        super().declare()


@structure_rule("DotProductAttention")
class DotProductAttention(Rule):
    """keras.ops.dot_product_attention on `[batch, length, heads, features]`.

    Heads are one unit of all three.
    """

    def declare(self):
        arguments = self.call.arguments
        self.ends = [
            self.call.index(arguments[x]) for x in ("query", "key", "value")
        ]
        q, k, v = self.ends
        others = [i for i in range(len(self.inputs)) if i not in self.ends]
        for i in others:
            self.stays("adds it to the scores", source=i)
        for name in ("bias", "mask"):
            if has_heads(arguments.get(name)):
                for i in set(self.ends):
                    self.stays(f"has a {name} for each head", [-2], i)
        for i in set(self.ends):
            self.stays(
                "attends over them",
                [a for a in self.inputs[i] if a not in (-1, -2)],
                i,
            )
        same = len({self.call.input_shapes[i][-2] for i in self.ends}) == 1
        tracked = all(-2 in self.inputs[i] for i in self.ends)
        if same and tracked:
            for i in self.ends:
                self.passes([-2], source=i)
        else:
            for i in set(self.ends):
                self.stays("shares heads", [-2], i)
        # Keras' shape inference takes values to be as wide as queries.
        for i in set(self.ends):
            self.stays("needs queries, keys and values of one width", [-1], i)
        self.passes([-1], source=v)

    def constants(self, read, inputs):
        found = [
            {a: np.full(len(ids), np.nan) for a, ids in o.items()}
            for o in self.outputs
        ]
        v = self.ends[2]
        for axis in (-1, -2):
            if axis in found[0] and axis in inputs[v]:
                found[0][axis] = np.where(inputs[v][axis] == 0, 0.0, np.nan)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        q, k, v = self.ends
        for i in (q, k):
            if -1 in found[i]:
                found[i][-1][:] = True
        if all(-2 in found[i] for i in self.ends):
            for i in (q, k):
                found[i][-2] &= inputs[v][-2] != 0
        return found
