"""Normalizations."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule, Unknown, structure_rule
from tf_ssl.structures.rules.pointwise import Mixing


@structure_rule(layers.BatchNormalization)
class BatchNormalization(Rule):
    """In inference a scale and a shift of each unit."""

    def trace(self, tracer, inputs):
        op, rank = self.op, len(self.call.input_shapes[0])
        if inputs[0] is None or inputs[0].axis % rank != op.axis % rank:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{op.name} normalizes another axis"
            )
        for variable, role in (
            (op.gamma, "norm"),
            (op.beta, "norm"),
            (op.moving_mean, "stat"),
            (op.moving_variance, "stat"),
        ):
            tracer.slice(variable, role, inputs[0].ids, 0)
        return [inputs[0]]

    def constants(self, read, inputs):
        op = self.op
        scale = 1.0 / np.sqrt(
            read(op.moving_variance).astype(np.float64) + op.epsilon
        )
        if op.gamma is not None:
            scale = scale * read(op.gamma)
        # A scale of 0 makes anything constant.
        centred = np.where(scale == 0, 0.0, inputs[0] - read(op.moving_mean))
        shift = 0.0 if op.beta is None else read(op.beta)
        return [centred * scale + shift]

    def needs(self, read, outputs, inputs, gone):
        if self.op.gamma is None:
            return [outputs[0]]
        return [outputs[0] & (read(self.op.gamma) != 0)]


@structure_rule(layers.RMSNormalization)
class RMSNormalization(Rule):
    """y = x gamma / sqrt(mean(x^2) + epsilon): the mean is over all units.

    With C' of C units left, the others zero, the mean grows by C / C':
    gamma sqrt(C / C') and epsilon C / C' give the same.
    """

    is_reader = True

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        axes = np.atleast_1d(self.op.axis) % rank
        if inputs[0] is None or list(axes) != [inputs[0].axis % rank]:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{self.op.name} normalizes another axis"
            )
        self.ids = inputs[0].ids
        tracer.slice(self.op.scale, "norm", inputs[0].ids, 0)
        return [inputs[0]]

    def constants(self, read, inputs):
        zero = (inputs[0] == 0) | (read(self.op.scale) == 0)
        return [np.where(zero, 0.0, np.nan)]

    def needs(self, read, outputs, inputs, gone):
        return [np.ones(len(inputs[0]), bool)]  # all are in the mean

    def foldable(self, read, constants, index):
        return constants == 0

    def folds(self, read, constants, index):
        return []

    def config(self, keep):
        kept = keep(self.ids)
        return {"epsilon": self.op.epsilon * len(kept) / max(1, kept.sum())}

    def values(self, variable, value, keep):
        kept = keep(self.ids)
        return value[kept] * math.sqrt(len(kept) / max(1, kept.sum()))


@structure_rule(layers.LayerNormalization, layers.GroupNormalization)
class MixingNormalization(Mixing):
    """Removing a unit, even a zero one, would move the others."""


@structure_rule(layers.Normalization)
class Normalization(Rule):
    """Of the input, with numbers of its own."""

    def trace(self, tracer, inputs):
        return Unknown(self.call).keep_all(
            tracer, inputs, f"{self.op.name} has numbers for each feature"
        )

    def constants(self, read, inputs):
        return Unknown(self.call).constants(read, inputs)

    def needs(self, read, outputs, inputs, gone):
        return [np.ones(len(x), bool) for x in inputs]
