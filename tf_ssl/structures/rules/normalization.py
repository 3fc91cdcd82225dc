"""Normalizations, over a batch or over an example."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.mixing import Along, unknown
from tf_ssl.structures.rules.table import Unknown, structure_rule


@structure_rule(layers.BatchNormalization)
class BatchNormalization(Rule):
    """In inference a scale and a shift of each unit."""

    def declare(self):
        op, rank = self.op, len(self.call.input_shapes[0])
        axis = self.axis = op.axis % rank - rank
        self.stays(
            "normalizes another axis", [a for a in self.inputs[0] if a != axis]
        )
        self.passes([axis])
        for variable, role in (
            (op.gamma, "norm"),
            (op.beta, "norm"),
            (op.moving_mean, "stat"),
            (op.moving_variance, "stat"),
        ):
            self.carries(variable, 0, axis, role)

    def constants(self, read, inputs):
        op = self.op
        if self.axis not in inputs[0]:
            return [{}]
        scale = 1.0 / np.sqrt(
            read(op.moving_variance).astype(np.float64) + op.epsilon
        )
        if op.gamma is not None:
            scale = scale * read(op.gamma)
        # A scale of 0 makes anything constant.
        centred = np.where(
            scale == 0, 0.0, inputs[0][self.axis] - read(op.moving_mean)
        )
        shift = 0.0 if op.beta is None else read(op.beta)
        return [{self.axis: centred * scale + shift}]

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if self.op.gamma is not None and self.axis in found[0]:
            found[0][self.axis] &= read(self.op.gamma) != 0
        return found


@structure_rule(layers.LayerNormalization, layers.GroupNormalization)
class MixingNormalization(Along):
    """Removing a unit, even a zero one, moves the others."""

    reason = "mixes all units of an example"
    only_if_exact = True

    def own_axes(self):
        rank = len(self.call.input_shapes[0])
        return {int(a) % rank - rank for a in np.atleast_1d(self.op.axis)}

    def declare(self):
        op = self.op
        own = self.own_axes()
        groups = getattr(op, "groups", 1)
        size = self.call.input_shapes[0][max(own)]
        can_shrink = len(own) == 1 and groups in (1, -1, size)
        self.stays(self.reason, own, exact=can_shrink)
        if not isinstance(op, layers.LayerNormalization):
            self.stays(
                "mixes places", [a for a in self.inputs[0] if a not in own]
            )
        self.passes(own, value=unknown)
        self.passes([a for a in self.inputs[0] if a not in own], value=unknown)
        for axis in own if len(own) == 1 else ():
            for variable in (op.gamma, op.beta):
                if variable is not None:
                    self.carries(variable, 0, axis, "norm")

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        op = self.op
        if (
            not self.exact
            and op.gamma is not None
            and len(self.own_axes()) == 1
        ):
            (axis,) = self.own_axes()
            if axis in found[0]:
                beta = 0.0 if op.beta is None else read(op.beta)
                found[0][axis] = np.where(read(op.gamma) == 0, beta, np.nan)
        return found

    def config(self, keep):
        groups = getattr(self.op, "groups", None)
        (axis, *_) = self.own_axes()
        ids = self.outputs[0].get(axis)
        if groups in (None, 1, -1) or ids is None:
            return {}
        return {"groups": int(keep(ids).sum())}


@structure_rule(layers.RMSNormalization)
class RMSNormalization(Along):
    """y = x gamma / sqrt(mean(x^2) + epsilon): the mean is over all units.

    With C' of C units left, the others zero, the mean grows by C / C':
    gamma sqrt(C / C') and epsilon C / C' give the same.
    """

    def own_axes(self):
        rank = len(self.call.input_shapes[0])
        return {int(a) % rank - rank for a in np.atleast_1d(self.op.axis)}

    def declare(self):
        own = self.own_axes()
        others = [a for a in self.inputs[0] if a not in own]
        self.passes(others, value=lambda v: np.where(v == 0, 0.0, np.nan))
        if len(own) > 1 or self.op.scale is None:
            self.stays("mixes all units of an example", own)
            return
        (self.axis,) = own
        self.passes([self.axis])
        self.carries(self.op.scale, 0, self.axis, "norm")
        self.ids = self.inputs[0].get(self.axis)

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        if getattr(self, "ids", None) is not None:
            zero = (inputs[0][self.axis] == 0) | (read(self.op.scale) == 0)
            found[0][self.axis] = np.where(zero, 0.0, np.nan)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        for axis in self.own_axes():
            if axis in found[0]:
                found[0][axis][:] = True  # all are in the mean
        return found

    def read_axes(self, index):
        return (self.axis,) if getattr(self, "ids", None) is not None else ()

    def foldable(self, read, constants, index):
        return {self.axis: constants[self.axis] == 0}

    def folds(self, read, constants, index):
        return []

    def config(self, keep):
        if getattr(self, "ids", None) is None:
            return {}
        kept = keep(self.ids)
        return {"epsilon": self.op.epsilon * len(kept) / max(1, kept.sum())}

    def values(self, variable, value, keep):
        if getattr(self, "ids", None) is None:
            return None
        kept = keep(self.ids)
        return value[kept] * math.sqrt(len(kept) / max(1, kept.sum()))


@structure_rule(layers.Normalization)
class Normalization(Unknown):
    """Of the input, with numbers of its own."""

    def declare(self):
        self.refuse(f"{self.name} has numbers for each feature")
