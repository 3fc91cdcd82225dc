"""Tables of words: embeddings, and rows by number."""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import structure_rule
from tf_ssl.structures.units import Space


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
        self.made = self.follow(-1)
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


@structure_rule("Take")
class Take(Rule):
    """Rows by number: other axes of the table pass."""

    def declare(self):
        table = self.call.arguments["x"]
        axis = self.op.axis
        i = self.call.index(table)
        for j, _ in enumerate(self.inputs):
            if j != i:
                self.stays("reads indices", source=j)
        if i is None:
            return
        rank, out = len(table.shape), len(self.call.output_shapes[0])
        if axis is None:
            self.stays("flattens it", source=i)
            return
        axis = axis % rank - rank
        self.stays("picks some of them", [axis], source=i)
        more = out - rank  # axes of the indices less the one that they replace
        self.passes(
            {
                a: a if a > axis else a - more
                for a in self.inputs[i]
                if a != axis
            },
            source=i,
        )
